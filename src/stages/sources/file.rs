//! `file`: films from paths, globs and URLs, each a stream that is read once from start to end;
//! nothing is lost, the decoder waits.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::shape::{Default, Field, Type};
use crate::media;
use crate::packet::{Event, PayloadKind};
use crate::stage::source_setup::{self, SourceSetup};
use crate::stage::{Build, Context, Endpoint, Host, Joins, Lookahead, Source, StageKind};
use crate::{Error, Result, redact};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "file",
    doc: "Films from paths, globs and URLs, each a stream that is read once. When a queue is full \
          the decoder waits, so nothing is lost.",
    accepts: &[],
    emits: &[PayloadKind::Frame, PayloadKind::Audio],
    params: &[
        Field {
            name: "paths",
            ty: Type::List(&Type::Text),
            default: Default::Required,
            doc: "Paths, globs (`films/*.mp4`) and URLs (http, https). A path that is not there \
                  is an error, a glob without a match too. A film that is named twice is read once.",
        },
        source_setup::VIEWS,
        Field {
            name: "parallel",
            ty: Type::Int(1, 1024),
            default: Default::Is("1"),
            doc: "Films read at a time.",
        },
        source_setup::LABELS,
        source_setup::STALL,
        source_setup::CONNECT,
        source_setup::MAX_PIXELS,
        source_setup::DEINTERLACE,
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Files,
    lookahead: Lookahead::none,
    build: Build::Source(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Source>> {
    let params = context.params;
    Ok(Arc::new(FileSource {
        setup: SourceSetup::new(context, false),
        paths: source_setup::texts(params.list("paths")),
        parallel: params.int("parallel").unsigned_abs() as usize,
    }))
}

struct FileSource {
    setup: SourceSetup,
    paths: Vec<Arc<str>>,
    parallel: usize,
}

#[async_trait]
impl Source for FileSource {
    async fn run(&self, host: Arc<dyn Host>, stop: CancellationToken) -> Result<()> {
        let mut failed = Vec::new();
        let mut uris = Vec::new();
        for path in &self.paths {
            match expand(path) {
                Ok(found) => uris.extend(found),
                Err(error) => failed.push(error),
            }
        }
        // A film that is named twice, or matches two globs, is one stream.
        let mut known = HashSet::new();
        uris.retain(|uri| known.insert(stream_id(&self.setup.origin.stage, uri)));
        let count = uris.len() + failed.len();
        let failed = Mutex::new(failed);
        stream::iter(uris)
            .for_each_concurrent(self.parallel, |uri| {
                let (host, stop, failed) = (&host, &stop, &failed);
                async move {
                    if let Err(error) = self.read(&uri, host, stop).await {
                        tracing::error!(stage = %self.setup.origin.stage, %error, "film failed");
                        failed.lock().push(error);
                    }
                }
            })
            .await;
        let mut failed = failed.into_inner();
        match failed.len() {
            0 => Ok(()),
            1 => Err(failed.remove(0)),
            bad => Err(failed
                .remove(0)
                .context(format_args!("{bad} of {count} inputs failed, the first"))),
        }
    }
}

impl FileSource {
    async fn read(&self, uri: &str, host: &Arc<dyn Host>, stop: &CancellationToken) -> Result<()> {
        if stop.is_cancelled() {
            return Ok(());
        }
        let Some(opened) = stop
            .run_until_cancelled(media::open(uri, &self.setup.options))
            .await
        else {
            return Ok(());
        };
        let opened = opened?;
        let digest = if uri.contains("://") {
            None
        } else {
            Some(media::file_digest(uri).await?)
        };
        let started = Event::Started {
            uri: redact::redact(uri),
            digest,
        };
        self.setup
            .play(
                opened,
                stream_id(&self.setup.origin.stage, uri).into(),
                started,
                (host, stop),
            )
            .await
    }
}

/// The inputs that a path, glob or URL names.
fn expand(path: &str) -> Result<Vec<String>> {
    if path.contains("://") || Path::new(path).exists() || !path.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let matches = glob::glob(path)
        .map_err(|error| Error::config(format!("`{path}` is not a glob: {error}")))?;
    let mut found = Vec::new();
    for entry in matches {
        let entry = entry.map_err(|error| {
            Error::external(format!("cannot read a match of `{path}`")).because(error)
        })?;
        found.push(entry.to_string_lossy().into_owned());
    }
    if found.is_empty() {
        return Err(
            Error::external(format!("nothing matches `{path}`")).hint("name files that are there")
        );
    }
    found.sort();
    Ok(found)
}

/// A stream's id: the source's, the file's stem as it may be shown, and eight digits of the hash of
/// what tells the URI from others.
fn stream_id(source: &str, uri: &str) -> String {
    let (shown, canonical) = if uri.contains("://") {
        (redact::redact(uri), redact::identity(uri))
    } else {
        let path = std::fs::canonicalize(uri).map_or_else(
            |_| uri.to_owned(),
            |path| path.to_string_lossy().into_owned(),
        );
        (uri.to_owned(), path)
    };
    let path = match uri.contains("://") {
        true => shown.split('?').next().unwrap_or_default(),
        false => &shown,
    };
    let stem = Path::new(path)
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let stem: String = stem
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    let hash = blake3::hash(canonical.as_bytes()).to_hex();
    format!("{source}-{stem}-{}", &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_expand_in_order_and_must_match() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["b.mp4", "a.mp4", "c.txt"] {
            std::fs::write(folder.path().join(name), "x").expect("it is writable");
        }
        let pattern = |suffix: &str| format!("{}/{suffix}", folder.path().display());
        let found = expand(&pattern("*.mp4")).expect("two match");
        assert!(
            found.len() == 2 && found[0].ends_with("a.mp4") && found[1].ends_with("b.mp4"),
            "{found:?}"
        );
        assert!(
            expand(&pattern("*.mkv"))
                .expect_err("none matches")
                .to_string()
                .contains("nothing matches")
        );
        assert_eq!(
            expand("http://127.0.0.1/*.mp4")
                .expect("a URL is no glob")
                .len(),
            1
        );
    }

    #[test]
    fn stream_ids_are_stable_and_differ_by_place() {
        let id = stream_id("films", "http://127.0.0.1/a/one%20two.mp4");
        assert_eq!(id, stream_id("films", "http://127.0.0.1/a/one%20two.mp4"));
        assert!(id.starts_with("films-one-20two-"), "{id}");
        assert_ne!(id, stream_id("films", "http://127.0.0.1/b/one%20two.mp4"));
        assert_eq!(
            stream_id("f", "http://user:pass@h/x.mp4"),
            stream_id("f", "http://other:word@h/x.mp4")
        );
        for uri in [
            "http://h/film?token=hunter2",
            "http://h/film.mp4?token=a/hunter2",
            "http://joe:hunter2@h",
            "http://joe:a/hunter2@h/film.mp4",
        ] {
            let id = stream_id("f", uri);
            assert!(!id.contains("hunter2"), "{id}");
        }
        assert_ne!(
            stream_id("f", "http://h/film?id=1"),
            stream_id("f", "http://h/film?id=2")
        );
    }
}
