//! The file sink and the Redis sink: containers, captions as WebVTT, pictures, the latest records.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{KINDS, READ_BACK, REGISTRY, prefix};
use crate::support::pipeline::generated;
use crate::support::{Place, env, python, records, service};

#[test]
fn containers_hold_what_the_lines_hold() {
    let written = &*REGISTRY;
    let paths = KINDS.map(|kind| written.file(&format!("{kind}.avro")).display().to_string());
    let mut arguments = vec!["containers".to_owned()];
    arguments.extend(paths.clone());
    let mut read: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut line in python(READ_BACK, arguments) {
        assert_eq!(line["codec"], "deflate");
        let file = line["file"].as_str().unwrap().to_owned();
        let (name, kind) = (
            line["schema"].as_str().unwrap().to_lowercase(),
            &file[file.rfind('/').unwrap() + 1..],
        );
        assert_eq!(format!("{}s.avro", name.rsplit('.').next().unwrap()), kind);
        read.entry(file).or_default().push(line["value"].take());
    }
    for (kind, path) in KINDS.into_iter().zip(paths) {
        assert_eq!(read[&path].len(), written.files[kind].len(), "{path}");
        records::same(&records::by_id(&read[&path]), &written.files[kind], &path);
    }
}

#[test]
fn sequence_numbers_have_no_hole() {
    for kind in KINDS {
        let mut by_stage: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for record in REGISTRY.files[kind].values() {
            by_stage
                .entry(record["meta"]["stage"].as_str().unwrap())
                .or_default()
                .push(record["meta"]["seq"].as_u64().unwrap());
        }
        for (stage, mut numbers) in by_stage {
            numbers.sort_unstable();
            assert!(
                numbers.iter().copied().eq(0..numbers.len() as u64),
                "{kind} of {stage}: {numbers:?}"
            );
        }
    }
}

#[test]
fn segments_cover_the_film_and_records_name_their_parents() {
    let written = &*REGISTRY;
    let segments = written.records("segments");
    let span = |record: &Value| {
        (
            record["meta"]["start"].as_u64().unwrap(),
            record["meta"]["end"].as_u64().unwrap(),
        )
    };
    assert!(
        segments
            .iter()
            .zip(&segments[1..])
            .all(|(one, next)| span(one).1 == span(next).0),
        "no hole between segments"
    );
    assert!(
        span(segments[0]).0 < 100_000_000 && span(segments[segments.len() - 1]).1 > 11_900_000_000
    );
    assert_eq!(
        segments
            .iter()
            .filter(|segment| segment["cut"] == "hard")
            .count(),
        2,
        "the film's two cuts"
    );
    assert!(
        segments
            .iter()
            .all(|segment| span(segment).1 - span(segment).0 <= 3_050_000_000),
        "none longer than max_length"
    );
    for caption in written.records("captions") {
        let parents: Vec<&str> = caption["meta"]["parents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap())
            .collect();
        assert_eq!(
            span(&written.files["segments"][parents[0]]),
            span(caption),
            "a caption is about its segment"
        );
        for parent in &parents[1..] {
            let at = span(&written.files["embeddings"][*parent]).0;
            assert!(
                span(caption).0 <= at && at < span(caption).1,
                "and about the vectors inside it"
            );
        }
        assert_eq!(caption["meta"]["model"]["id"], "SmolLM2-135M-Instruct");
        assert_eq!(caption["meta"]["labels"]["channel"], "one");
        assert!(!caption["text"].as_str().unwrap().is_empty());
    }
}

#[test]
fn captions_are_webvtt_over_the_segments() {
    let written = &*REGISTRY;
    let text = std::fs::read_to_string(written.file("captions.vtt")).unwrap();
    let (header, cues) = text.split_once("\n\n").unwrap();
    assert_eq!(header, "WEBVTT");
    let mut read: Vec<(u64, u64, String)> = cues.trim_end().split("\n\n").map(cue).collect();
    read.sort();
    let millis = |nanos: &Value| nanos.as_u64().unwrap() / 1_000_000;
    let expected: Vec<_> = written
        .records("segments")
        .iter()
        .map(|s| (millis(&s["meta"]["start"]), millis(&s["meta"]["end"])))
        .collect();
    assert_eq!(
        read.iter()
            .map(|(start, end, _)| (*start, *end))
            .collect::<Vec<_>>(),
        expected
    );
    for ((_, _, shown), caption) in read.iter().zip(written.records("captions")) {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(
                &shown
                    .replace("&lt;", "<")
                    .replace("&gt;", ">")
                    .replace("&amp;", "&")
            ),
            words(caption["text"].as_str().unwrap())
        );
    }
}

/// Start, end (milliseconds) and text of a cue, by the grammar of WebVTT's timings.
fn cue(block: &str) -> (u64, u64, String) {
    let (timing, text) = block
        .split_once('\n')
        .unwrap_or_else(|| panic!("a cue without text: {block}"));
    let (start, end) = timing.split_once(" --> ").unwrap();
    let clock = |clock: &str| {
        let [hours, minutes, seconds] = clock.split(':').collect::<Vec<_>>()[..] else {
            panic!("{clock}")
        };
        let (seconds, millis) = seconds.split_once('.').unwrap();
        assert!(
            minutes.len() == 2 && seconds.len() == 2 && millis.len() == 3,
            "{clock}"
        );
        let number = |digits: &str| digits.parse::<u64>().unwrap();
        ((number(hours) * 60 + number(minutes)) * 60 + number(seconds)) * 1000 + number(millis)
    };
    assert!(
        !text.contains("-->") && clock(start) < clock(end),
        "{block}"
    );
    (clock(start), clock(end), text.to_owned())
}

#[test]
fn each_shot_has_its_jpeg_and_the_sheet_shows_them_all() {
    let written = &*REGISTRY;
    let pictures: Vec<_> = std::fs::read_dir(written.file("pictures"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(pictures.len(), written.records("segments").len());
    for path in pictures {
        let picture = image::open(&path).unwrap();
        assert_eq!(
            (picture.width(), picture.height()),
            (480, 270),
            "{}",
            path.display()
        );
    }
    let sheet = image::open(written.file("contact_sheet-keyframe.jpg")).unwrap();
    let shown = written.records("segments").len() as u32;
    assert_eq!(sheet.width(), 240 * shown.min(8));
    assert_eq!(sheet.height(), 135 * shown.div_ceil(8));
}

#[test]
fn redis_holds_the_latest_of_each_kind_and_all_of_them() {
    let written = &*REGISTRY;
    let found = python(
        READ_BACK,
        ["redis", &env("REDIS_URL"), prefix(), &written.stream],
    )
    .remove(0);
    let mut by_kind: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for entry in found["records"].as_array().unwrap() {
        by_kind
            .entry(format!("{}s", entry["kind"].as_str().unwrap()))
            .or_default()
            .push(&entry["record"]);
    }
    for kind in KINDS {
        assert_eq!(by_kind[kind].len(), written.files[kind].len(), "{kind}");
        records::same(
            &records::by_id(by_kind[kind].iter().copied()),
            &written.files[kind],
            kind,
        );
        assert_eq!(
            &found["latest"][&kind[..kind.len() - 1]],
            *by_kind[kind].last().unwrap(),
            "the last {kind} is the latest"
        );
    }
    assert!(
        found["ttl"]
            .as_array()
            .unwrap()
            .iter()
            .all(|ttl| (80_000..=86_400).contains(&ttl.as_i64().unwrap())),
        "{}",
        found["ttl"]
    );
}

#[test]
fn without_redis_a_pipeline_goes_on() {
    let place = Place::new();
    let nowhere = format!("redis://127.0.0.1:{}", service::free_port());
    let sinks = format!(
        "  - {{ id: files, kind: file, inputs: [thinned], with: {{ path: ./out, formats: [jsonl] }} }}
  - {{ id: latest, kind: redis, inputs: [thinned], retry: {{ attempts: 2 }}, with: {{ url: \"{nowhere}\" }} }}\n"
    );
    let top = format!("cache: {{ redis: \"{nowhere}\" }}");
    let pipeline = place.write("pipeline.yaml", generated(&top, "frames: 40", &sinks));
    let run = place.run(&pipeline, &[]).ended(0);
    let (_, files) = records::of_files(&place.path("out"));
    assert_eq!(files["frames"].len(), 20);
    let balance = run.balance("all");
    assert_eq!(
        (balance.ingested, balance.delivered, balance.absorbed),
        (40, 20, 20)
    );
    assert!(
        run.stderr.contains("Redis did not take the records"),
        "{}",
        run.stderr
    );
}
