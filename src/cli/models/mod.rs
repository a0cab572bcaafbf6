//! `opusflow models`: fetches models from a hub, lists those that are there, and checks them.

mod commands;
mod folders;
mod list;
mod numbers;
mod progress;
mod pull;
mod verify;

pub(super) use self::commands::{ModelsCommand, run};
pub(super) use self::pull::pull_missing;
