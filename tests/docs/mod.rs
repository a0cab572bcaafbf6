//! The documentation is held to the program: what README.md, CONTRIBUTING.md and `docs/` show is
//! run or checked, and what they name exists.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod blocks;
mod commands;
mod consumers;
mod links;
mod pages;
mod pipelines;
mod reference;
mod shell;
mod site;
mod words;
