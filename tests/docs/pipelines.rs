//! Every pipeline and every part of one passes `opusflow validate`.

use std::fs;

use super::pages::{Block, pages};
use super::site::Site;

/// The stages that parts of pipelines may read, each with what it reads.
const STAGES: [(&str, &[&str], &str); 6] = [
    (
        "films",
        &[],
        "  - id: films
    kind: file
    with:
      paths: films/wannaworktogether.mp4
      views:
        cuts:   { fps: native, size: 48x27 }
        frames: { fps: 2, size: 224x224 }
        stills: { fps: 5, size: 480x352 }
        sound:  { audio: 1s }
",
    ),
    (
        "shots",
        &["films"],
        "  - id: shots
    kind: shots
    inputs: [{ from: films.cuts, queue: { frames: 512, bytes: 16MiB } }]
    with: { model: cuts, max_length: 10s }
",
    ),
    (
        "keyframes",
        &["shots", "films"],
        "  - id: keyframes
    kind: keyframe
    inputs: [shots, { from: films.stills, queue: { frames: 256, bytes: 256MiB } }]
    join: { per: shots, collect: [films.stills] }
",
    ),
    (
        "vectors",
        &["films"],
        "  - id: vectors
    kind: encode
    inputs: [{ from: films.frames, queue: { frames: 256, bytes: 64MiB } }]
    with: { model: tags }
",
    ),
    (
        "speech",
        &["films"],
        "  - id: speech
    kind: transcribe
    inputs: [{ from: films.sound, queue: { frames: 128, bytes: 16MiB } }]
    with: { model: ears, vad: voice }
",
    ),
    (
        "captions",
        &["shots", "vectors", "films"],
        "  - id: captions
    kind: caption
    inputs: [shots, { from: vectors, queue: { frames: 512, bytes: 16MiB } }]
    join: { per: shots, collect: [vectors] }
    with: { model: words }
",
    ),
];

const MODELS: &str = "models:
  cuts:  { path: transnetv2 }
  tags:  { path: resnet-18 }
  voice: { path: silero-vad }
  ears:  { path: whisper-tiny }
  words: { path: SmolLM2-135M-Instruct }
  clip:  { path: clip }
";

/// The pipeline that a block is, or is a part of.
fn whole(block: &Block) -> String {
    let text = &block.text.replace("/run/secrets/", "./secrets/");
    match block.attribute("fragment") {
        None => text.clone(),
        Some("stages") => around_stages(text),
        Some("views") => {
            let views: String = text
                .lines()
                .map(|line| format!("        {line}\n"))
                .collect();
            format!(
                "version: 1\nname: part\nstages:\n  - id: films\n    kind: file\n    with:\n      \
                 paths: films/wannaworktogether.mp4\n      views:\n{views}{}",
                sink(
                    &names(text)
                        .map(|view| format!("films.{view}"))
                        .collect::<Vec<_>>()
                )
            )
        }
        Some("top") => {
            let films = STAGES[0].2;
            let sink = sink(&outputs(films));
            format!("version: 1\nname: part\n{text}\nstages:\n{films}{sink}")
        }
        Some(other) => panic!("{}: no test knows the part `{other}`", block.place),
    }
}

/// The keys that lines begin with.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with([' ', '#']))
        .filter_map(|line| line.split_once(':').map(|(name, _)| name))
}

/// Stages of a page, with those of the skeleton that they read, and a sink for all that nobody
/// reads. Models of its own may stand before them.
fn around_stages(text: &str) -> String {
    let (models, text) = text
        .split_once("stages:\n")
        .map_or(("", text), |(head, stages)| {
            (head.trim_start_matches("models:\n"), stages)
        });
    let words = |text: &str| -> Vec<String> {
        let inputs = text.lines().filter(|line| {
            line.contains("inputs:")
                || line.contains("from:")
                || line.trim_start().starts_with("- ")
        });
        inputs
            .flat_map(|line| {
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            })
            .map(str::to_owned)
            .collect()
    };
    let ids: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- id: "))
        .collect();
    let read = words(text);
    let mut wanted: Vec<&str> = Vec::new();
    for (id, inputs, _) in STAGES {
        if read.iter().any(|word| word == id) {
            wanted.extend(inputs.iter().chain([&id]));
        }
    }
    let mut stages = String::new();
    for (id, _, stage) in STAGES {
        if wanted.contains(&id) && !ids.contains(&id) {
            stages.push_str(stage);
        }
    }
    stages.push_str(text);
    let unread: Vec<String> = outputs(&stages);
    format!(
        "version: 1\nname: part\n{MODELS}{models}stages:\n{stages}{}",
        sink(&unread)
    )
}

/// Everything that the stages of a text give: transforms by their ids, sources by their views.
fn outputs(stages: &str) -> Vec<String> {
    let mut found = Vec::new();
    for stage in stages.split("  - id: ").skip(1) {
        let id = stage.lines().next().unwrap_or_default().trim();
        let is_sink = ["kind: file", "kind: redis", "kind: kafka", "kind: console"]
            .iter()
            .any(|kind| stage.contains(kind));
        if !stage.contains("inputs:") {
            let views = stage.split("views:\n").nth(1).unwrap_or_default();
            let views = views.lines().filter_map(|line| {
                line.trim()
                    .split_once(": ")
                    .map(|(name, _)| name.trim_end_matches(':'))
            });
            found.extend(views.map(|view| format!("{id}.{view}")));
        } else if !is_sink {
            found.push(id.to_owned());
        }
    }
    found
}

fn sink(inputs: &[String]) -> String {
    format!(
        "  - {{ id: nowhere, kind: discard, inputs: [{}] }}\n",
        inputs.join(", ")
    )
}

#[test]
fn pipelines_and_their_parts_are_valid() {
    let site = Site::new();
    let (mut wholes, mut parts) = (0, 0);
    for block in pages().into_iter().flat_map(|page| page.blocks) {
        if block.language != "yaml" || block.is_unchecked() {
            continue;
        }
        if block.attribute("fragment").is_some() {
            parts += 1
        } else {
            wholes += 1
        }
        let text = whole(&block);
        fs::write(site.path().join("page.yaml"), &text).unwrap();
        let output = site.opusflow(&["validate".into(), "page.yaml".into()], &[]);
        assert!(
            output.status.success(),
            "{}:\n{}\n{text}",
            block.place,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(
        wholes >= 2 && parts >= 10,
        "{wholes} pipelines, {parts} parts"
    );
}

#[test]
fn a_wrong_part_is_found() {
    let site = Site::new();
    let block = |text: &str| Block {
        place: "here".into(),
        language: "yaml".into(),
        attributes: [("fragment".to_owned(), "stages".to_owned())].into(),
        text: text.into(),
    };
    let good = "  - id: found\n    kind: encode\n    inputs: [films.frames]\n    with: { model: clip, labels: [a goal] }\n";
    for (text, is_good) in [
        (good.to_owned(), true),
        (good.replace("labels", "lables"), false),
        (good.replace("films.frames", "films.frame"), false),
        (good.replace("encode", "encoder"), false),
    ] {
        fs::write(site.path().join("page.yaml"), whole(&block(&text))).unwrap();
        let output = site.opusflow(&["validate".into(), "page.yaml".into()], &[]);
        assert_eq!(output.status.success(), is_good, "{text}\n{output:?}");
    }
}
