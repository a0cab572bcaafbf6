//! What is said in a film lands in files, phrase by phrase: file -> transcribe -> file, twice over
//! the same sound.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

use std::path::Path;

use serde_json::Value;

use crate::support::{Place, film, json_lines};

fn pipeline(paths: &str, with: &str) -> String {
    format!(
        r#"version: 1
name: speech
threads: {{ tokio: 1, torch: 2, decode: 1 }}
model_dir: "${{OPUSFLOW_MODELS}}"
models:
  speech: {{ path: whisper-tiny, precision: f32 }}
  voice:  {{ path: silero-vad }}
stages:
  - id: films
    kind: file
    with:
      paths: {paths}
      views: {{ sound: {{ audio: 1s }} }}
  - id: said
    kind: transcribe
    inputs: [films.sound]
    concurrency: 64
    with: {{ model: speech, {with} }}
  - {{ id: files, kind: file, inputs: [said], with: {{ path: ./out, formats: [jsonl, vtt] }} }}
  - {{ id: screen, kind: console, inputs: [said] }}
"#
    )
}

/// The transcripts of a stream's folder, by their times.
fn transcripts(folder: &Path) -> Vec<Value> {
    let mut lines = json_lines(&std::fs::read_to_string(folder.join("transcripts.jsonl")).unwrap());
    lines.sort_by_key(|record| record["meta"]["start"].as_u64());
    lines
}

fn seconds(value: &Value) -> f64 {
    value.as_u64().unwrap() as f64 / 1e9
}

/// The streams' folders.
fn folders(out: &Path) -> Vec<std::path::PathBuf> {
    let every = std::fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    every
        .filter(|path| path.join("transcripts.jsonl").is_file())
        .collect()
}

#[test]
fn what_is_said_lands_in_files_with_the_times_of_its_words() {
    let place = Place::new();
    film::spoken(&place.path("film.mkv"));
    std::fs::copy(place.path("film.mkv"), place.path("copy.mkv")).unwrap();
    let text = pipeline(
        "[film.mkv, copy.mkv]",
        "vad: voice, language: en, pause: 4s",
    );
    let run = place.run(&place.write("pipeline.yaml", text), &[]).ended(0);
    let streams = folders(&place.path("out"));
    assert_eq!(streams.len(), 2);
    for stream in &streams {
        let records = transcripts(stream);
        let phrase = |words: &str| {
            let found = records.iter().find(|record| {
                record["text"]
                    .as_str()
                    .unwrap()
                    .to_lowercase()
                    .contains(words)
            });
            found.unwrap_or_else(|| panic!("`{words}` is not in {records:?}"))
        };
        let start = |words: &str| seconds(&phrase(words)["meta"]["start"]);
        assert!(
            (4.8..8.).contains(&start("copyright protects your creativity")),
            "after the silence at the beginning: {records:?}"
        );
        assert!(
            start("millions and millions") > 18.5,
            "after the silence in the middle: {records:?}"
        );
        for record in &records {
            let (start, end) = (
                seconds(&record["meta"]["start"]),
                seconds(&record["meta"]["end"]),
            );
            assert!(
                start < end && (end < 13.5 || start > 18.5),
                "nothing is said in silence: {record}"
            );
            let words = record["words"].as_array().unwrap();
            assert!(!words.is_empty());
            let times: Vec<f64> = words
                .iter()
                .flat_map(|word| [seconds(&word["start"]), seconds(&word["end"])])
                .collect();
            assert!(
                times.is_sorted() && times[0] > start - 0.5 && times[times.len() - 1] < end + 1.5,
                "{record}"
            );
            let spoken: Vec<&str> = words
                .iter()
                .map(|word| word["text"].as_str().unwrap())
                .collect();
            assert_eq!(spoken.join(" "), record["text"].as_str().unwrap());
            assert!(
                words
                    .iter()
                    .all(|word| (0.0..=1.).contains(&word["probability"].as_f64().unwrap()))
            );
            assert_eq!(
                (&record["language"], &record["task"]),
                (&"en".into(), &"transcribe".into())
            );
            assert_eq!(record["meta"]["model"]["id"], "whisper-tiny");
            assert!(!record["meta"]["parents"].as_array().unwrap().is_empty());
        }
        assert!(
            std::fs::read_to_string(stream.join("transcripts.vtt"))
                .unwrap()
                .starts_with("WEBVTT")
        );
    }
    let windows = 2;
    let (memory, _, computed) = run.cache("transcribe");
    assert_eq!(
        (memory + computed, computed),
        (2 * windows, windows),
        "equal sound is written down once"
    );
    for (view, balance) in run.ledger() {
        assert_eq!((balance.dropped, balance.dead_lettered), (0, 0), "{view}");
        assert!(
            balance.absorbed >= 10 && balance.delivered >= 10,
            "silence is absorbed, speech delivered: {balance:?}"
        );
    }
}

#[test]
fn without_a_detector_windows_are_of_one_length() {
    let place = Place::new();
    film::spoken(&place.path("film.mkv"));
    let text = pipeline(
        "film.mkv",
        "max_length: 14s, words: false, task: translate, temperatures: 0, cache: false",
    );
    place.run(&place.write("pipeline.yaml", text), &[]).ended(0);
    let records = transcripts(&folders(&place.path("out"))[0]);
    let text: Vec<&str> = records
        .iter()
        .map(|record| record["text"].as_str().unwrap())
        .collect();
    assert!(text.join(" ").contains("millions"), "{text:?}");
    let across = |record: &&Value| {
        (seconds(&record["meta"]["start"]) / 14.) as u64
            != ((seconds(&record["meta"]["end"]) - 0.01) / 14.) as u64
    };
    assert_eq!(
        records.iter().filter(across).count(),
        0,
        "no phrase crosses the border of windows"
    );
    assert!(
        records.iter().all(|record| record["task"] == "translate"
            && record["words"].as_array().unwrap().is_empty())
    );
}

#[test]
fn what_the_model_cannot_do_is_said_before_anything_runs() {
    let place = Place::new();
    place.write("film.mkv", "no film");
    for (with, word) in [("language: tlh", "`tlh`"), ("max_length: 31s", "30s")] {
        let run = place.run(
            &place.write("pipeline.yaml", pipeline("film.mkv", with)),
            &[],
        );
        assert_ne!(run.code, Some(0));
        assert!(run.stderr.contains(word), "{}", run.stderr);
    }
}
