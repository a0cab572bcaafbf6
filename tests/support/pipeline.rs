//! Pipelines for the tests: the demo's on a film, and small ones without models.

use std::path::Path;

/// The demo's stages on one film, its records to a `file` sink in `./out` and to whatever else is
/// asked for.
pub struct Demo<'a> {
    /// The top of the file: kafka, cache, objects.
    pub top: &'a str,
    /// Film to read.
    pub film: &'a Path,
    /// Further stages, each a list item indented by two; `ALL` stands for what the file sink reads.
    pub sinks: &'a str,
}

/// What every record sink reads.
const ALL: &str = "[films.frames, shots, keyframes, vectors, captions]";

impl Demo<'_> {
    pub fn text(&self) -> String {
        format!(
            r#"version: 1
name: e2e
{top}
threads: {{ tokio: 1, torch: 2, decode: 1 }}
model_dir: "${{OPUSFLOW_MODELS}}"
models:
  cuts:  {{ path: transnetv2 }}
  tags:  {{ path: resnet-18, batch: {{ max_size: 8, max_wait: 20ms }} }}
  words: {{ path: SmolLM2-135M-Instruct, batch: {{ max_size: 8, max_wait: 50ms }} }}
stages:
  - id: films
    kind: file
    with:
      paths: "{film}"
      labels: {{ channel: one }}
      views:
        cuts:   {{ fps: native, size: 48x27 }}
        frames: {{ fps: 2, size: 224x224 }}
        stills: {{ fps: 5, size: 480x270 }}
  - id: shots
    kind: shots
    inputs: [{{ from: films.cuts, queue: {{ frames: 512, bytes: 16MiB }} }}]
    with: {{ model: cuts, threshold: 0.5, max_length: 3s }}
  - id: keyframes
    kind: keyframe
    inputs: [shots, {{ from: films.stills, queue: {{ frames: 256, bytes: 128MiB }} }}]
    join: {{ per: shots, collect: [films.stills] }}
  - id: vectors
    kind: encode
    inputs: [{{ from: films.frames, queue: {{ frames: 256, bytes: 64MiB }} }}]
    concurrency: 16
    with: {{ model: tags, top: 5 }}
  - id: captions
    kind: caption
    inputs: [shots, {{ from: vectors, queue: {{ frames: 256, bytes: 16MiB }} }}]
    join: {{ per: shots, collect: [vectors] }}
    concurrency: 8
    with: {{ model: words, prompt: "A {{duration}} second clip shows: {{tags}}. Write its caption.", max_tokens: 12 }}
  - id: files
    kind: file
    inputs: {ALL}
    with: {{ path: ./out, formats: [jsonl, avro, vtt, jpeg, contact_sheet] }}
  - {{ id: screen, kind: console, inputs: [shots, captions] }}
{sinks}"#,
            top = self.top,
            film = self.film.display(),
            sinks = self.sinks.replace("ALL", ALL),
        )
    }
}

/// Generated frames through `sample` into `sinks` (list items indented by two, which read
/// `thinned`); no model.
pub fn generated(top: &str, source: &str, sinks: &str) -> String {
    format!(
        r#"version: 1
name: generated
{top}
threads: {{ tokio: 1, torch: 1, decode: 1 }}
stages:
  - id: bars
    kind: test
    with: {{ pattern: smpte, {source}, views: {{ all: {{ fps: native, size: 64x48 }} }} }}
  - id: thinned
    kind: sample
    inputs: [bars.all]
    with: {{ every: 2 }}
{sinks}"#
    )
}
