//! Vectors and labels of networks that a user brings: CLIP and SigLIP with labels of one's own, and
//! a TorchScript module with its outputs declared; small random ones, beside whose goldens the
//! networks are proven.

use serde_json::Value;

use crate::support::{Place, records, root};

/// One film of bars through every encoder; `STAGES` are list items indented by two, of which the
/// sinks read all.
fn pipeline(stages: &str, read: &str) -> String {
    let models = ["clip-tiny", "siglip-tiny", "torchscript-named"]
        .map(|name| root().join("tests/golden").join(name).display().to_string());
    let [clip, siglip, module] = models;
    format!(
        r#"version: 1
name: vectors
threads: {{ tokio: 1, torch: 1, decode: 1 }}
models:
  clip: {{ path: {clip}, device: cpu, precision: f32 }}
  siglip: {{ path: {siglip}, device: cpu, precision: f32 }}
  module: {{ path: {module}, device: cpu }}
stages:
  - {{ id: bars, kind: test, with: {{ pattern: smpte, frames: 5, views: {{ all: {{ fps: native, size: 61x37 }} }} }} }}
{stages}
  - {{ id: out, kind: file, inputs: {read}, with: {{ path: ./out, formats: [jsonl] }} }}
"#
    )
}

const STAGES: &str = r#"  - { id: tags, kind: encode, inputs: [bars.all], with: { model: clip, labels: [a cat, a street, rain], top: 2 } }
  - { id: others, kind: encode, inputs: [bars.all], with: { model: clip, labels: [panic], template: "{} in the city" } }
  - { id: each, kind: encode, inputs: [bars.all], with: { model: siglip, labels: [a cat, a street], template: "{}: Photo", dtype: f16 } }
  - { id: own, kind: torchscript, inputs: [bars.all], with: { model: module, top: 1 } }"#;

const GRID: &str = "  - { id: grid, kind: torchscript, inputs: [bars.all], with: { model: module, \
                    size: 20x30, output: grid, normalize: true } }";

fn of<'a>(records: &'a records::Records, stage: &'a str) -> impl Iterator<Item = &'a Value> {
    records["embeddings"]
        .values()
        .filter(move |record| record["meta"]["stage"] == stage)
}

fn names(record: &Value) -> Vec<&str> {
    record["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label["name"].as_str().unwrap())
        .collect()
}

fn sum(record: &Value) -> f64 {
    record["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label["score"].as_f64().unwrap())
        .sum()
}

#[test]
fn labels_of_ones_own_reach_the_records() {
    let place = Place::new();
    let text = pipeline(STAGES, "[tags, others, each, own]");
    let run = place.run(&place.write("pipeline.yaml", text), &[]).ended(0);
    let (_, records) = records::of_files(&place.path("out"));
    for stage in ["tags", "others", "each", "own"] {
        assert_eq!(of(&records, stage).count(), 5, "{stage}: {}", run.stdout);
    }
    for record in of(&records, "tags") {
        assert_eq!(
            (&record["dim"], &record["normalized"], names(record).len()),
            (&16.into(), &true.into(), 2)
        );
        assert!(
            names(record)
                .iter()
                .all(|name| ["a cat", "a street", "rain"].contains(name))
                && sum(record) < 1.0,
            "{record}"
        );
    }
    // A label alone has all of what competing labels share.
    assert!(of(&records, "others").all(|record| names(record) == ["panic"] && sum(record) == 1.0));
    for record in of(&records, "each") {
        let mut both = names(record);
        both.sort_unstable();
        assert_eq!(
            (both, &record["dtype"], &record["dim"]),
            (vec!["a cat", "a street"], &"f16".into(), &32.into())
        );
        assert!(
            (sum(record) - 1.0).abs() > 1e-3,
            "each for itself: {record}"
        );
    }
    for record in of(&records, "own") {
        assert_eq!(
            (&record["dim"], &record["normalized"], names(record).len()),
            (&4.into(), &false.into(), 1)
        );
        assert!(
            ["day", "night", "rain", "snow"].contains(&names(record)[0]),
            "{record}"
        );
    }
    // Stages with other labels share a picture's vector.
    let (memory, redis, computed) = run.cache("encode");
    assert_eq!(memory + redis + computed, 15);
    assert!(computed <= 10, "{computed} computed");
}

#[test]
fn what_a_stage_declares_stands_for_what_the_modules_folder_does() {
    let place = Place::new();
    let named = root().join("tests/golden/torchscript-named");
    let folder = place.path("module");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(named.join("model.pt"), folder.join("model.pt")).unwrap();
    std::fs::write(
        folder.join("config.json"),
        r#"{"architectures": ["TorchScript"], "input_size": 16, "output": "logits"}"#,
    )
    .unwrap();
    let text = pipeline(GRID, "[grid]")
        .replace(&named.display().to_string(), &folder.display().to_string());
    place.run(&place.write("pipeline.yaml", text), &[]).ended(0);
    let (_, records) = records::of_files(&place.path("out"));
    assert_eq!(of(&records, "grid").count(), 5);
    for record in of(&records, "grid") {
        // Six channels of 14 x 9, from 30 rows of 20.
        assert_eq!(
            (&record["dim"], &record["normalized"], names(record).len()),
            (&756.into(), &true.into(), 0)
        );
    }
}

/// What is written lies in the space of what is seen.
#[test]
fn captions_have_vectors_beside_those_of_frames() {
    let place = Place::new();
    let clip = root().join("tests/golden/clip-tiny").display().to_string();
    let text = format!(
        r#"version: 1
name: search
threads: {{ tokio: 1, torch: 1, decode: 1 }}
model_dir: "${{OPUSFLOW_MODELS}}"
models:
  clip: {{ path: {clip}, device: cpu, precision: f32 }}
  cuts: {{ path: transnetv2, device: cpu, precision: f32 }}
  words: {{ path: SmolLM2-135M-Instruct, device: cpu, precision: f32 }}
stages:
  - {{ id: bars, kind: test, with: {{ frames: 60, views: {{ all: {{ fps: native, size: 48x27 }} }} }} }}
  - {{ id: shots, kind: shots, inputs: [bars.all], with: {{ model: cuts, max_length: 1s }} }}
  - {{ id: captions, kind: caption, inputs: [shots], with: {{ model: words, prompt: "Say hello.", max_tokens: 3 }} }}
  - {{ id: written, kind: embed, inputs: [captions], with: {{ model: clip, template: "they say {{}}" }} }}
  - {{ id: seen, kind: encode, inputs: [bars.all], with: {{ model: clip }} }}
  - {{ id: out, kind: file, inputs: [captions, written, seen], with: {{ path: ./out, formats: [jsonl] }} }}
"#
    );
    let run = place.run(&place.write("pipeline.yaml", text), &[]).ended(0);
    let (_, records) = records::of_files(&place.path("out"));
    let captions = &records["captions"];
    assert!(captions.len() >= 2, "{}", run.stdout);
    assert_eq!(of(&records, "written").count(), captions.len());
    let space = &of(&records, "seen").next().expect("frames were encoded")["space"];
    for record in of(&records, "written") {
        assert_eq!(
            (&record["space"], &record["dim"], &record["normalized"]),
            (space, &16.into(), &true.into())
        );
        assert_eq!((&record["frames"], names(record).len()), (&0.into(), 0));
        let parent = record["meta"]["parents"][0].as_str().unwrap();
        assert_eq!(
            record["meta"]["start"], captions[parent]["meta"]["start"],
            "it is of that caption"
        );
    }
    // One prompt, one caption, one vector, computed once.
    let (memory, redis, computed) = run.cache("embed");
    assert_eq!(
        (memory + redis + computed, computed),
        (captions.len() as u64, 1)
    );
}

#[test]
fn labels_that_cannot_be_looked_for_are_refused_before_anything_runs() {
    let place = Place::new();
    let stage = |with: &str| {
        format!("  - {{ id: tags, kind: encode, inputs: [bars.all], with: {{ {with} }} }}")
    };
    let template = pipeline(
        &stage("model: clip, labels: [a cat], template: a photo"),
        "[tags]",
    );
    let run = place
        .run(&place.write("template.yaml", template), &[])
        .ended(2);
    assert!(
        run.stderr.contains("has no place for a label"),
        "{}",
        run.stderr
    );
    let path = place.write(
        "other.yaml",
        pipeline(&stage("model: module, labels: [a cat]"), "[tags]"),
    );
    let run = place
        .call([std::ffi::OsStr::new("validate"), path.as_os_str()])
        .ended(2);
    assert!(
        run.stderr
            .contains("`labels` needs a CLIPModel or SiglipModel, and `module` is a TorchScript"),
        "{}",
        run.stderr
    );
}
