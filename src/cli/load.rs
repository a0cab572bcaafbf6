//! Reads and checks a pipeline file for a command.

use std::path::Path;

use super::look;
use crate::config::{Environment, Source};
use crate::pipeline::check::{Checked, Overrides, checked as check};
use crate::stages::KINDS;

/// The checked pipeline, or none after saying on standard error what is wrong with it.
pub(super) fn checked(path: &Path, set: &[String], sources: &[String]) -> Option<Checked> {
    let text = match Source::read(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {error}");
            return None;
        }
    };
    let environment: Environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let overrides = Overrides { sources: sources.to_vec(), set: set.to_vec() };
    match check(&text, KINDS, &environment, &overrides) {
        Ok(checked) => Some(checked),
        Err(problems) => {
            eprint!("{}", problems.render(look()));
            None
        }
    }
}
