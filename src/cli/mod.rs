//! The commands: each reads the pipeline, does one thing and ends with a code that scripts can act
//! on.

mod arguments;
mod commands;
mod doctor;
mod load;
mod models;
mod output;
mod progress_bars;
mod reexec;
pub mod reference;
mod report;
mod run;
mod schemas;
mod signals;
mod stages;

pub use self::commands::main;
