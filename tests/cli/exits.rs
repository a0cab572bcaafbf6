//! Exit codes, one by one.

use std::time::{Duration, Instant};

use crate::support::live::From;
use crate::support::pipeline::{Demo, generated};
use crate::support::{Live, Place, film, records, service};

const FILES: &str =
    "  - { id: files, kind: file, inputs: [thinned], with: { path: ./out, formats: [jsonl] } }\n";

#[test]
fn bad_inputs_beside_a_good_one_end_with_1_and_the_good_one_is_there() {
    let place = Place::new();
    let corrupt = place.write(
        "corrupt.mp4",
        (0..200_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect::<Vec<_>>(),
    );
    let film = film::patterns_film().display();
    let text = format!(
        r#"version: 1
name: inputs
stages:
  - id: films
    kind: file
    with:
      paths: ["{film}", "{corrupt}", "{corrupt}-*.gone"]
      views: {{ all: {{ fps: 5, size: 64x48 }} }}
  - {{ id: files, kind: file, inputs: [films.all], with: {{ path: ./out, formats: [jsonl] }} }}
"#,
        corrupt = corrupt.display()
    );
    let run = place
        .run(&place.write("pipeline.yaml", &text), &[])
        .ended(1);
    assert!(
        run.stdout
            .contains("error: stage `films`: 2 of 3 inputs failed"),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr.contains("corrupt.mp4") && run.stdout.contains("nothing matches"),
        "{}",
        run.stdout
    );
    assert_eq!(run.balance("all").delivered, 30);

    let gone = place.write("gone.yaml", text.replace("-*.gone", ".gone"));
    let run = place.run(&gone, &[]).ended(2);
    assert!(
        run.stderr.contains("corrupt.mp4.gone"),
        "a path that is not there is found before anything runs:\n{}",
        run.stderr
    );
}

#[test]
fn a_film_named_twice_is_read_once() {
    let place = Place::new();
    let film = film::patterns_film().display();
    let text = format!(
        r#"version: 1
name: twice
stages:
  - id: films
    kind: file
    with:
      paths: ["{film}", "{film}", "{film}*"]
      views: {{ all: {{ fps: 5, size: 64x48 }} }}
  - {{ id: files, kind: file, inputs: [films.all], with: {{ path: ./out, formats: [jsonl] }} }}
"#
    );
    let run = place
        .run(&place.write("pipeline.yaml", &text), &[])
        .ended(0);
    assert_eq!(run.balance("all").delivered, 30);
}

#[test]
fn mistakes_in_the_file_or_on_the_command_line_end_with_2() {
    let place = Place::new();
    let broken = place.write(
        "broken.yaml",
        "version: 1\nname: x\nstages:\n  - id: a\n    kind: fiel\n",
    );
    let run = place.run(&broken, &[]).ended(2);
    assert!(
        run.stderr.contains("fiel") && run.stderr.contains("did you mean `file`"),
        "{}",
        run.stderr
    );
    assert!(run.stdout.is_empty());

    let model = generated("models: { tags: { path: resnet-19 } }", "frames: 5", FILES);
    let model = place.write(
        "model.yaml",
        model
            .replace("kind: sample", "kind: encode")
            .replace("every: 2", "model: tags"),
    );
    let run = place.run(&model, &[]).ended(2);
    assert!(run.stderr.contains("resnet-19"), "{}", run.stderr);

    place.run(&place.path("nowhere.yaml"), &[]).ended(2);
    place.call(["rnu"]).ended(2);
    let fine = place.write("fine.yaml", generated("", "frames: 5", FILES));
    let run = place
        .run(&fine, &["--set", "stages.thinned.with.evry=3"])
        .ended(2);
    assert!(run.stderr.contains("evry"), "{}", run.stderr);
    place.run(&fine, &[]).ended(0);
}

#[test]
fn unreachable_brokers_end_the_doctor_with_3() {
    let place = Place::new();
    let topics = "  - { id: topics, kind: kafka, inputs: [thinned] }\n";
    let top = format!(
        "kafka: {{ brokers: \"127.0.0.1:{}\" }}",
        service::free_port()
    );
    let pipeline = place.write("pipeline.yaml", generated(&top, "frames: 5", topics));
    let run = place.call(["doctor", pipeline.to_str().unwrap()]).ended(3);
    assert!(
        run.stdout
            .lines()
            .any(|line| line.starts_with("BAD  kafka")),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout
            .lines()
            .any(|line| line.starts_with("ok   libtorch")),
        "{}",
        run.stdout
    );
}

/// Waits until the file sink has some frames of the generated stream.
fn wait_for_frames(place: &Place) {
    let lines = || {
        std::fs::read_to_string(place.path("out/bars-0/frames.jsonl"))
            .map_or(0, |text| text.lines().count())
    };
    let began = Instant::now();
    while lines() < 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "no frames");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The drain cannot end, because what a required sink needs is away: a second signal ends it, and
/// the ledger tells what was lost.
#[test]
fn second_signal_ends_with_4_and_the_loss_is_counted() {
    let place = Place::new();
    let sinks = format!(
        "{FILES}  - {{ id: latest, kind: redis, inputs: [thinned], required: true, dead_letter: none, retry: {{ attempts: 100, backoff: 1s }},
      with: {{ url: \"redis://127.0.0.1:{}\" }} }}\n",
        service::free_port()
    );
    let live = place.start(
        &place.write("pipeline.yaml", generated("", "live: true", &sinks)),
        &[],
    );
    wait_for_frames(&place);
    live.signal("TERM");
    live.line(From::Stderr, |line| line.contains("a second signal forces"));
    live.signal("TERM");
    let run = live.wait().ended(4);
    let balance = run.balance("all");
    assert!(balance.dropped > 0 && balance.delivered == 0, "{balance:?}");
    assert!(run.stdout.contains("shutdown"), "{}", run.stdout);
}

#[test]
fn a_stream_cut_by_a_signal_drains_and_its_ledger_closes() {
    let place = Place::new();
    let pipeline = place.write("pipeline.yaml", generated("", "live: true", FILES));
    let live = place.start(&pipeline, &[]);
    wait_for_frames(&place);
    live.signal("TERM");
    let run = live.wait().ended(0);
    let balance = run.balance("all");
    assert!(
        balance.ingested >= 19 && balance.delivered >= 10,
        "{balance:?}"
    );
    assert_eq!((balance.dropped, balance.dead_lettered), (0, 0));
    let (_, files) = records::of_files(&place.path("out"));
    assert_eq!(
        files["frames"].len() as u64,
        balance.delivered,
        "all that counts as delivered is in the file"
    );
    let ended = files["events"]
        .values()
        .find(|event| event["kind"] == "ended")
        .unwrap();
    assert_eq!(ended["ended"]["reason"], "shutdown");
    assert_eq!(ended["ended"]["ledger"]["all"]["in_flight"], 0);
}

/// A run that is stopped while models load waits for the one at hand, whose thread must not outlive
/// libtorch, and loads no other.
#[test]
fn a_signal_while_models_load_ends_it_in_order() {
    let place = Place::new();
    let pipeline = place.write(
        "pipeline.yaml",
        Demo {
            top: "",
            film: film::patterns_film(),
            sinks: "",
        }
        .text(),
    );
    let live = place.start(&pipeline, &[]);
    live.line(From::Stderr, |line| {
        line.contains("model is loaded and warm")
    });
    live.signal("TERM");
    let run = live.wait().ended(0);
    assert!(
        run.stderr.contains("stopped before any stream began"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.matches("model is loaded and warm").count() < 3,
        "the last model was loaded too:\n{}",
        run.stderr
    );
}

/// Signals are heard before anything else starts, be it GStreamer's first look at all its plugins,
/// and end a run whose models still load.
#[test]
fn a_signal_during_the_start_ends_it_in_order() {
    let place = Place::new();
    let top = "model_dir: \"${OPUSFLOW_MODELS}\"\nmodels: { tags: { path: resnet-18 } }";
    let text = generated(top, "live: true", FILES)
        .replace("kind: sample", "kind: encode")
        .replace("every: 2", "model: tags");
    let pipeline = place.write("pipeline.yaml", text);
    let mut command = place.opusflow(["run", "--quiet"]);
    command
        .arg(&pipeline)
        .env("GST_REGISTRY", place.path("plugins.bin"));
    let live = Live::spawn(command);
    live.listens();
    assert!(
        !place.path("plugins.bin").exists(),
        "GStreamer had started before signals were heard"
    );
    live.signal("TERM");
    let run = live.wait().ended(0);
    assert!(
        run.stderr.contains("stopped before any stream began")
            && run.stdout.contains("streams: 0, "),
        "{}{}",
        run.stdout,
        run.stderr
    );
    assert!(!place.path("out").exists(), "nothing was read");
}
