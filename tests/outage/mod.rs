//! Outages: what a pipeline leans on goes away in the middle of a run and comes back, or is no good
//! to begin with, and every frame is accounted for.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

mod bad_input;
mod disk;
mod kafka;
mod redis;
pub mod rig;
