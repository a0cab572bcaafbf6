//! The two flags that change a pipeline: `--source URL` and `--set PATH=VALUE`.

use crate::config::{Entry, Node, NodeKind, Place, Problems, Provenance, SourceText, edit};

/// What the command line changes.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--source`: paths and URLs in place of those of the pipeline's one source.
    pub sources: Vec<String>,
    /// Those of `sources` that are films though their URL could be a live stream's: HLS playlists
    /// that are complete.
    pub films: Vec<String>,
    /// `--set PATH=VALUE`, in order.
    pub set: Vec<String>,
}

impl Overrides {
    pub(super) fn apply(&self, root: &mut Node, problems: &mut Problems) {
        if !self.sources.is_empty() {
            self.replace_source(root, problems);
        }
        for assignment in &self.set {
            edit::set(root, assignment, problems);
        }
    }

    /// The one `file`, `live` or `test` stage reads from these instead, and becomes the kind that
    /// can; its views stay.
    fn replace_source(&self, root: &mut Node, problems: &mut Problems) {
        let places: Vec<Place> = self
            .sources
            .iter()
            .map(|text| whole(problems.add_source(SourceText::new("--source", text)), text))
            .collect();
        let is_live = |url: &String| is_live(url) && !self.films.contains(url);
        let live = is_live(&self.sources[0]);
        if let Some(other) = self.sources.iter().position(|url| is_live(url) != live) {
            problems.add(
                places[other],
                "files and live streams cannot stand in for one source together",
            );
            return;
        }
        let kind_of = |stage: &Node| {
            stage
                .entry("kind")
                .and_then(|entry| entry.value.text().map(str::to_owned))
        };
        let is_source = |stage: &Node| {
            stage.entry("inputs").is_none()
                && matches!(kind_of(stage).as_deref(), Some("file" | "live" | "test"))
        };
        let NodeKind::Map(entries) = &mut root.kind else {
            return;
        };
        let Some(Node {
            kind: NodeKind::List(stages),
            ..
        }) = entries
            .iter_mut()
            .find(|entry| entry.key == "stages")
            .map(|entry| &mut entry.value)
        else {
            return;
        };
        let found: Vec<usize> = (0..stages.len())
            .filter(|&at| is_source(&stages[at]))
            .collect();
        let [at] = found[..] else {
            let help = "use `--set stages.ID.with.paths=...` or `--set \
                        stages.ID.with.streams=[{url: ...}]`";
            problems
                .add(
                    places[0],
                    format!(
                        "the pipeline has {} sources, `--source` stands in for one",
                        found.len()
                    ),
                )
                .help(help);
            return;
        };
        let test = kind_of(&stages[at]).as_deref() == Some("test");
        self.rewrite(&mut stages[at], live, &places, test, problems);
    }

    fn rewrite(
        &self,
        stage: &mut Node,
        live: bool,
        places: &[Place],
        test: bool,
        problems: &mut Problems,
    ) {
        let (kind, key, stale) = if live {
            ("live", "streams", "paths")
        } else {
            ("file", "paths", "streams")
        };
        let path = |parts: &[&str]| {
            parts
                .iter()
                .map(|part| ((*part).to_owned(), places[0]))
                .collect::<Vec<_>>()
        };
        let items = self.sources.iter().zip(places).map(|(url, &place)| {
            let text = Node::flag(url, true, place);
            if live {
                flag(
                    NodeKind::Map(vec![Entry {
                        key: "url".to_owned(),
                        at: place,
                        value: text,
                    }]),
                    place,
                )
            } else {
                text
            }
        });
        let list = flag(NodeKind::List(items.collect()), places[0]);
        if stage.entry("kind").and_then(|entry| entry.value.text()) != Some(kind) {
            edit::put(
                stage,
                &path(&["kind"]),
                Node::flag(kind, true, places[0]),
                problems,
            );
            // What only the former kind knows goes with it.
            if let NodeKind::Map(entries) = &mut stage.kind
                && let Some(with) = entries.iter_mut().find(|entry| entry.key == "with")
                && let NodeKind::Map(inside) = &mut with.value.kind
            {
                let shared = ["views", "labels", "stall", "connect", "max_pixels"];
                inside.retain(|entry| {
                    if test {
                        entry.key == "views"
                    } else {
                        entry.key != stale && shared.contains(&entry.key.as_str())
                    }
                });
            }
        }
        edit::put(stage, &path(&["with", key]), list, problems);
    }
}

fn flag(kind: NodeKind, place: Place) -> Node {
    Node {
        kind,
        place,
        provenance: Provenance::Flag,
    }
}

fn whole(source: usize, text: &str) -> Place {
    Place {
        source,
        start: 0,
        end: text.len(),
    }
}

/// Whether a URL is a live stream's, as far as it shows; everything else is a film.
fn is_live(url: &str) -> bool {
    let scheme = url
        .split_once("://")
        .map_or("", |(scheme, _)| scheme)
        .to_ascii_lowercase();
    let path = url.split(['?', '#']).next().unwrap_or(url);
    matches!(
        scheme.as_str(),
        "rtmp" | "rtmps" | "rtmpt" | "rtsp" | "rtsps" | "srt"
    ) || (scheme.starts_with("http") && path.to_ascii_lowercase().ends_with(".m3u8"))
}

#[cfg(test)]
mod tests {
    use super::is_live;

    #[test]
    fn live_streams_are_known_by_their_url() {
        for url in [
            "rtmp://h/live/x",
            "RTSP://h/x",
            "srt://h:1?mode=call_context",
            "https://h/x.m3u8?token=1",
            "http://h/X.M3U8",
        ] {
            assert!(is_live(url), "{url}");
        }
        for url in ["film.mp4", "films/*.mkv", "https://h/film.mp4", "/srt/x.ts"] {
            assert!(!is_live(url), "{url}");
        }
    }
}
