//! A full disk: `/dev/full` stands in for the file that cannot be written.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::rig::{PATIENCE, Run, lines};

/// test -> sample -> file, whose dead letters go where `LETTERS` says.
const PIPELINE: &str = r#"
version: 1
name: full-disk
stages:
  - id: drawn
    kind: test
    with: { frames: 200, rate: 50, picture: 64x36, views: { frames: {} } }
  - { id: fewer, kind: sample, inputs: [drawn.frames], with: { every: 2 } }
  - id: files
    kind: file
    inputs: [fewer]
    retry: { attempts: 2, backoff: 1ms }
    dead_letter: LETTERS
    with: { path: "${OUT}", formats: [jsonl] }
  - { id: letters, kind: file, inputs: [drawn.frames], with: { path: "${OUT}-letters", formats: [jsonl] } }
"#;

/// Starts `PIPELINE` with a disk that has no room for frame records.
fn run_on_a_full_disk(letters: &str) -> Run {
    let dir = super::rig::folder();
    let (file, stream) = (
        dir.path().join("pipeline.yaml"),
        dir.path().join("out/drawn-0"),
    );
    fs::create_dir_all(&stream).unwrap();
    symlink("/dev/full", stream.join("frames.jsonl")).unwrap();
    fs::write(&file, PIPELINE.replace("LETTERS", letters)).unwrap();
    Run::start_in(dir, &file, &[])
}

fn check_error(run: &mut Run) {
    let ended = run.ended(PATIENCE);
    assert!(
        ended.stderr.contains("No space left on device"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("free some space"), "{}", ended.stderr);
    assert_eq!(ended.code, Some(1), "a delivery failed:\n{}", ended.stdout);
}

/// Records that cannot be written lie in the dead letters, with the reason.
#[test]
fn full_disk_sends_records_to_the_dead_letters() {
    let mut run = run_on_a_full_disk("letters");
    check_error(&mut run);
    let terms = &run.ledger_in("out-letters", "drawn-0")["frames"];
    assert_eq!(
        (
            terms.ingested,
            terms.delivered,
            terms.dead_lettered,
            terms.lost()
        ),
        (200, 100, 100, 0),
        "{terms:?}"
    );
    let letters = lines(&run.dir.path().join("out-letters/drawn-0/frames.dlq.jsonl"));
    assert_eq!(letters.len(), 100);
    for letter in letters {
        let error = letter["error"].as_str().unwrap();
        assert!(
            error.contains("cannot write") && error.contains("No space left on device"),
            "{letter}"
        );
    }
}

/// Without dead letters they are counted as lost.
#[test]
fn full_disk_without_dead_letters_counts_what_is_lost() {
    let mut run = run_on_a_full_disk("none");
    check_error(&mut run);
    let terms = &run.ledger_in("out-letters", "drawn-0")["frames"];
    assert_eq!(
        (
            terms.ingested,
            terms.delivered,
            terms.dead_lettered,
            terms.dropped["failed"]
        ),
        (200, 100, 0, 100),
        "{terms:?}"
    );
}

/// A folder that cannot be made fails each record, and each is counted.
#[test]
fn unwritable_folder_counts_every_record() {
    let mut run = Run::start(
        PIPELINE.replace("LETTERS", "none").as_str(),
        &[("OUT", "/proc/nowhere")],
    );
    let ended = run.ended(PATIENCE);
    assert!(
        !Path::new("/proc/nowhere").exists() && ended.stderr.contains("cannot write /proc/nowhere"),
        "{}",
        ended.stderr
    );
    assert!(
        !ended.stderr.contains("free some space"),
        "no disk is full:\n{}",
        ended.stderr
    );
    assert!(
        ended.stdout.contains("200 ingested = ") && ended.stdout.contains("failed 200"),
        "{}",
        ended.stdout
    );
}
