//! Where records go.

pub mod console;
pub mod discard;
pub mod file;
pub mod kafka;
pub mod redis;
