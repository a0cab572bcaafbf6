//! Fetches models from a Hugging Face hub: into the cache that Python's tools share, or into a
//! folder. What was fetched is never fetched twice, a broken transfer goes on where it broke, and a
//! file whose hash is not the hub's never gets its name.

mod client;
mod destination;
mod download;
mod progress;
mod pull;
mod retry;
mod selection;
#[cfg(test)]
mod tests;

pub use self::progress::Step;
pub use self::pull::{Pull, Pulled};
pub use self::retry::RetryPolicy;
pub use self::selection::SkipReason;
