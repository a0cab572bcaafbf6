//! Captions over whole runs: of frames and of segments by a captioner of pictures, in variants, and
//! by a language model that is told of them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::records::{self, Records, timeless};
use crate::support::{Place, root};

/// Generated pictures, cut by length alone.
const SOURCE: &str = r#"version: 1
name: captions
threads: { tokio: 1, torch: 1, decode: 1 }
model_dir: "${OPUSFLOW_MODELS}"
models:
  cuts:  { path: transnetv2 }
  sees:  { path: "ROOT/tests/golden/blip-tiny", precision: f32, batch: { max_size: 4, max_wait: 5ms } }
  words: { path: SmolLM2-135M-Instruct, precision: f32 }
stages:
  - id: noise
    kind: test
    with: { pattern: snow, rate: 25, frames: 75, views: { cuts: { size: 48x27 }, frames: { fps: 5, size: 40x36 } } }
  - id: shots
    kind: shots
    inputs: [{ from: noise.cuts, queue: { frames: 256, bytes: 16MiB } }]
    with: { model: cuts, max_length: 1s, threshold: 1.0 }
"#;

const STAGES: &str = r#"  - id: stills
    kind: caption
    inputs: [noise.frames]
    concurrency: 4
    with: { model: sees, max_tokens: 6, temperature: 0.9, variants: 3, seed: 4 }
  - id: seen
    kind: caption
    inputs: [shots, noise.frames]
    join: { per: shots, collect: [noise.frames] }
    with: { model: sees, prompt: "a photo of", max_tokens: 8, beams: 3, variants: 2 }
  - id: told
    kind: caption
    inputs: [shots, { from: seen, queue: { frames: 256 } }]
    join: { per: shots, collect: [seen] }
    with: { model: words, language: de, platform: tiktok, prompt: "Say \"{caption}\" in {language} for {platform}.", max_tokens: 8 }
  - { id: files, kind: file, inputs: [noise.frames, shots, stills, seen, told], with: { path: ./out, formats: [jsonl, vtt] } }
"#;

fn run(place: &Place, stages: &str) -> Records {
    let text = SOURCE.replace("ROOT", &root().display().to_string()) + stages;
    place.run(&place.write("pipeline.yaml", text), &[]).ended(0);
    records::of_files(&place.path("out")).1
}

fn of<'a>(records: &'a Records, stage: &'a str) -> impl Iterator<Item = &'a Value> {
    records["captions"]
        .values()
        .filter(move |caption| caption["meta"]["stage"] == stage)
}

#[test]
fn frames_and_segments_are_captioned_in_variants_and_a_prompt_tells_of_them() {
    let place = Place::new();
    let records = run(&place, STAGES);
    let (frames, segments) = (&records["frames"], &records["segments"]);
    assert!(
        (14..=16).contains(&frames.len()) && (3..=4).contains(&segments.len()),
        "{} {}",
        frames.len(),
        segments.len()
    );

    assert_eq!(of(&records, "stills").count(), 3 * frames.len());
    for caption in of(&records, "stills") {
        let parents = caption["meta"]["parents"].as_array().unwrap();
        assert!(
            parents.len() == 1 && frames.contains_key(parents[0].as_str().unwrap()),
            "{caption}"
        );
    }
    let texts: BTreeSet<&str> = of(&records, "stills")
        .map(|caption| caption["text"].as_str().unwrap())
        .collect();
    assert!(
        texts.len() > frames.len(),
        "variants are drawn each for itself: {texts:?}"
    );

    assert_eq!(of(&records, "seen").count(), 2 * segments.len());
    for caption in of(&records, "seen") {
        assert!(
            caption["text"].as_str().unwrap().starts_with("a photo of"),
            "{caption}"
        );
        let parents: Vec<&str> = caption["meta"]["parents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap())
            .collect();
        let (segment, frame) = (&segments[parents[0]]["meta"], &frames[parents[1]]["meta"]);
        let middle = (segment["start"].as_i64().unwrap() + segment["end"].as_i64().unwrap()) / 2;
        assert!(
            (frame["start"].as_i64().unwrap() - middle).abs() <= 100_000_000,
            "the frame nearest to the middle: {segment} {frame}"
        );
    }
    let variants: Vec<i64> = of(&records, "seen")
        .map(|caption| caption["variant"].as_i64().unwrap())
        .collect();
    assert_eq!(
        variants.iter().filter(|variant| **variant == 1).count(),
        segments.len()
    );

    assert_eq!(of(&records, "told").count(), segments.len());
    for caption in of(&records, "told") {
        assert_eq!(
            (&caption["language"], &caption["platform"]),
            (&"de".into(), &"tiktok".into())
        );
        assert_eq!(
            caption["meta"]["parents"].as_array().unwrap().len(),
            3,
            "a segment and its two captions: {caption}"
        );
    }
    let shown = std::fs::read_dir(place.path("out"))
        .unwrap()
        .find_map(|stream| {
            std::fs::read_to_string(stream.unwrap().path().join("captions.vtt")).ok()
        });
    let first = records["captions"]
        .values()
        .filter(|caption| caption["variant"] == 0)
        .count();
    assert_eq!(
        shown.unwrap().matches(" --> ").count(),
        first,
        "of variants the first is shown"
    );

    let again = run(&Place::new(), STAGES);
    records::same(
        &timeless(&again["captions"]),
        &timeless(&records["captions"]),
        "captions",
    );
}

#[test]
fn what_contradicts_itself_is_said_before_anything_runs() {
    let sink = "  - { id: files, kind: file, inputs: [shots, stills], with: { path: ./out } }\n";
    for (with, said) in [
        ("beams: 2, temperature: 0.5", "searched, not drawn"),
        ("variants: 2", "would all be the same"),
        (
            "system: be brief",
            "only a language model takes a system message",
        ),
        ("prompt: \"{tgas}\"", "asks for `tgas`"),
    ] {
        let stage = format!(
            "  - {{ id: stills, kind: caption, inputs: [noise.frames], with: {{ model: sees, \
             {with} }} }}\n"
        );
        let place = Place::new();
        let text = SOURCE.replace("ROOT", &root().display().to_string()) + &stage + sink;
        let run = place.run(&place.write("pipeline.yaml", text), &[]);
        assert!(
            run.code != Some(0) && run.stderr.contains(said),
            "{with}: {}",
            run.stderr
        );
    }
}
