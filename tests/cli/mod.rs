//! The commands and how they end: exit codes, what they print, signals, logs and metrics.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod commands;
mod exits;
mod hub;
mod running;
