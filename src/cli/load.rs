//! Reads and checks a pipeline file for a command.

use std::path::Path;

use super::output::report_style;
use crate::config::{Environment, SourceText};
use crate::media;
use crate::pipeline::check::{Checked, Overrides, checked as check};
use crate::stages::KINDS;

/// The checked pipeline, or none after saying on standard error what is wrong with it.
pub(super) fn checked(path: &Path, set: &[String], sources: &[String]) -> Option<Checked> {
    let text = match SourceText::load(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {error}");
            return None;
        }
    };
    let environment = environment();
    let overrides = Overrides {
        sources: sources.to_vec(),
        films: films(sources),
        set: set.to_vec(),
    };
    match check(&text, KINDS, &environment, &overrides) {
        Ok(checked) => Some(checked),
        Err(problems) => {
            eprint!("{}", problems.render(report_style()));
            None
        }
    }
}

/// The variables of this process; what is no text is left out.
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Those of the sources that are HLS playlists of a whole film. One that does not answer is taken
/// for a live stream, which is waited for.
fn films(sources: &[String]) -> Vec<String> {
    let playlists: Vec<&String> = sources
        .iter()
        .filter(|source| media::is_playlist(source))
        .collect();
    if playlists.is_empty() {
        return Vec::new();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return Vec::new();
    };
    let looks = playlists
        .into_iter()
        .map(|url| async move { (url, media::playlist_is_complete(url).await) });
    let looked = runtime.block_on(futures::future::join_all(looks));
    looked
        .into_iter()
        .filter(|(_, complete)| *complete == Some(true))
        .map(|(url, _)| url.clone())
        .collect()
}
