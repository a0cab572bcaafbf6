//! What a run tells while it runs: metrics on a port, logs as JSON.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::live::From;
use crate::support::pipeline::generated;
use crate::support::{Place, json_lines, service};

const SINK: &str =
    "  - { id: files, kind: file, inputs: [thinned], with: { path: ./out, formats: [jsonl] } }\n";

#[test]
fn metrics_are_served_while_it_runs() {
    let place = Place::new();
    let top = "telemetry: { metrics: \"127.0.0.1:0\" \
               }\nmodel_dir: \"${OPUSFLOW_MODELS}\"\nmodels: { tags: { path: resnet-18 } }";
    let text = generated(top, "live: true", SINK)
        .replace("kind: sample", "kind: encode")
        .replace("every: 2", "model: tags");
    let live = place.start(
        &place.write("pipeline.yaml", text.replace("smpte", "snow")),
        &[],
    );
    let line = live.line(From::Stderr, |line| line.contains("metrics are served"));
    let address = serde_json::from_str::<Value>(&line).unwrap()["address"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        address.starts_with("127.0.0.1:") && !address.ends_with(":0"),
        "the port that was taken: {line}"
    );
    let began = Instant::now();
    let served = loop {
        let served = get(&address, "/metrics");
        if sum(&served, "opusflow_inference_items_total") > 10.0 {
            break served;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{served}");
        std::thread::sleep(Duration::from_millis(100));
    };
    live.signal("INT");
    let run = live.wait().ended(0);

    assert!(
        served.contains("# TYPE opusflow_inference_items_total counter")
            && served.contains("# HELP opusflow_cache_misses_total ")
    );
    assert!(
        sum(&served, "opusflow_inference_batch_items_count") > 0.0,
        "{served}"
    );
    assert!(
        sum(&served, "opusflow_inference_batch_run_seconds_sum") > 0.0,
        "{served}"
    );
    assert!(
        sum(&served, "opusflow_cache_misses_total") > 10.0,
        "{served}"
    );
    for memory in [
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "opusflow_host_memory_bytes",
    ] {
        assert!(sum(&served, memory) > 1e6, "{memory}: {served}");
    }
    for some in ["process_open_fds", "process_max_fds", "process_threads"] {
        assert!(sum(&served, some) >= 1.0, "{some}: {served}");
    }
    assert!(
        served.contains("# TYPE process_cpu_seconds_total counter"),
        "{served}"
    );
    assert!(
        sum(&served, "process_start_time_seconds") > 1.7e9,
        "{served}"
    );
    let build = format!(
        "opusflow_build_info{{version=\"{}\",libtorch=\"",
        env!("CARGO_PKG_VERSION")
    );
    let build = served.lines().find(|line| line.starts_with(&build));
    assert!(
        build.is_some_and(|line| line.ends_with(" 1") && !line.contains("\"unknown\"")),
        "{build:?}"
    );
    assert!(run.balance("all").ingested as f64 >= sum(&served, "opusflow_inference_items_total"));
}

/// The samples of a metric in Prometheus' text format, added up.
fn sum(served: &str, metric: &str) -> f64 {
    let mut sum = 0.0;
    for line in served
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("opusflow_") || name.starts_with("process_"),
            "{line}"
        );
        if name.split('{').next() == Some(metric) {
            sum += value.parse::<f64>().unwrap();
        }
    }
    sum
}

/// The body of an answer to GET.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[test]
fn logs_are_json_with_one_line_for_each_stream() {
    let place = Place::new();
    let run = place
        .run(
            &place.write(
                "pipeline.yaml",
                generated("", "frames: 30, streams: 3", SINK),
            ),
            &[],
        )
        .ended(0);
    let lines = json_lines(&run.stderr);
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string()),
        "{}",
        run.stderr
    );
    let processed: BTreeMap<&str, &Value> = lines
        .iter()
        .filter(|line| line["message"] == "video_processed")
        .map(|line| (line["stream"].as_str().unwrap(), line))
        .collect();
    assert_eq!(
        processed.keys().copied().collect::<Vec<_>>(),
        ["bars-0", "bars-1", "bars-2"]
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["message"] == "video_processed")
            .count(),
        3
    );
    for line in processed.values() {
        assert_eq!(
            (line["frames"].as_u64(), line["reason"].as_str()),
            (Some(30), Some("end_of_stream"))
        );
        assert!(
            line["seconds"].as_f64().unwrap() > 0.0
                && line["memory_bytes"].as_u64().unwrap() > 1 << 20
                && line["gpu_busy"].is_number()
        );
    }
    assert_eq!(run.ledger().len(), 3);
}

/// A camera that nobody answers for is tried again and again, and the log says so once.
#[test]
fn a_camera_that_is_away_does_not_fill_the_log() {
    let place = Place::new();
    let text = format!(
        r#"version: 1
name: away
stages:
  - id: cams
    kind: live
    with:
      streams: [{{ id: cam, url: "rtmp://127.0.0.1:{}/live/one" }}]
      views: {{ all: {{ fps: 5, size: 64x48 }} }}
      backoff: 50ms
      max_backoff: 100ms
      give_up: 2s
  - {{ id: files, kind: file, inputs: [cams.all], with: {{ path: ./out, formats: [jsonl] }} }}
"#,
        service::free_port()
    );
    let run = place.run(&place.write("pipeline.yaml", text), &[]).ended(1);
    let lines = json_lines(&run.stderr);
    let away: Vec<_> = lines
        .iter()
        .filter(|line| line["message"] == "stream is away, connecting again")
        .collect();
    assert_eq!(away.len(), 1, "{}", run.stderr);
    let reason = away[0]["error"].as_str().unwrap();
    assert!(
        reason.contains("127.0.0.1") && reason.len() > 40,
        "it says why: {reason}"
    );
    assert!(
        lines.iter().all(|line| line["target"] != "gstreamer"),
        "{}",
        run.stderr
    );
}

const TWO: &str = "telemetry: { metrics: \"127.0.0.1:0\" }\nmodel_dir: \"${OPUSFLOW_MODELS}\"
models: { tags: { path: resnet-18, device: [cpu, cpu], memory_limit: 1GiB }, cuts: { path: transnetv2 } }";

/// A stage that asks `tags`, and nothing that asks `cuts`.
fn two_models(top: &str) -> String {
    let text = generated(&format!("{TWO}\n{top}"), "live: true", SINK);
    text.replace("kind: sample", "kind: encode")
        .replace("every: 2", "model: tags, cache: false")
}

/// The one sample of a metric whose labels hold `words`.
fn sample(served: &str, metric: &str, words: &[&str]) -> f64 {
    let fits = |line: &&str| {
        line.starts_with(&format!("{metric}{{")) && words.iter().all(|word| line.contains(word))
    };
    let mut lines = served.lines().filter(fits);
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no {metric} of {words:?} in\n{served}"));
    assert_eq!(lines.next(), None, "{metric} of {words:?} is not one");
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn asked_for_memory_a_run_unloads_what_is_idle_and_goes_on() {
    let place = Place::new();
    let live = place.start(&place.write("pipeline.yaml", two_models("")), &[]);
    let line = live.line(From::Stderr, |line| line.contains("metrics are served"));
    let address = serde_json::from_str::<Value>(&line).unwrap()["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let items = |served: &str| {
        ["device=\"cpu\"", "device=\"cpu.1\""].map(|device| {
            sample(
                served,
                "opusflow_inference_items_total",
                &["model=\"tags\"", device],
            )
        })
    };
    let until = |done: &dyn Fn(&str) -> bool| {
        let began = Instant::now();
        loop {
            let served = get(&address, "/metrics");
            if done(&served) {
                return served;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{served}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let before = until(&|served| items(served).iter().all(|items| *items > 3.0));
    let memory = |served: &str| {
        sample(
            served,
            "opusflow_inference_memory_bytes",
            &["model=\"cuts\""],
        )
    };
    assert!(
        memory(&before) > 20e6,
        "the weights of TransNetV2: {}",
        memory(&before)
    );
    assert!(sum(&before, "opusflow_inference_batch_fill_ratio_count") > 0.0);
    let peak = sample(
        &before,
        "opusflow_inference_batch_peak_memory_bytes",
        &["model=\"tags\"", "device=\"cpu.1\""],
    );
    assert!((20e6..1.1e9).contains(&peak), "{peak}");

    live.signal("USR1");
    live.line(From::Stderr, |line| line.contains("memory is given back"));
    let after = until(&|served| items(served)[0] > items(&before)[0] + 3.0);
    assert!(memory(&after) < 1e6, "{}", memory(&after));
    assert_eq!(
        sample(
            &after,
            "opusflow_inference_unloads_total",
            &["model=\"cuts\""]
        ),
        1.0
    );
    live.signal("INT");
    assert!(
        live.wait()
            .ended(0)
            .stderr
            .contains("model is unloaded until it is asked again")
    );
}

#[test]
fn above_its_threshold_a_run_unloads_what_is_idle() {
    let place = Place::new();
    let live = place.start(
        &place.write(
            "pipeline.yaml",
            two_models("memory: { threshold: 1MiB, idle: 2s }"),
        ),
        &[],
    );
    let line = live.line(From::Stderr, |line| {
        line.contains("memory was above its threshold")
    });
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (told["unloaded"].as_u64(), told["threshold"].as_u64()),
        (Some(1), Some(1)),
        "`tags` is at work: {line}"
    );
    live.signal("INT");
    live.wait().ended(0);
}

#[test]
fn torchs_threads_sleep_while_they_wait_unless_they_are_to_spin() {
    let place = Place::new();
    for (threads, policy) in [
        ("", Some("OMP_WAIT_POLICY=passive")),
        (", spin: true", None),
    ] {
        let text = generated("", "live: true", SINK)
            .replace("decode: 1 }", &format!("decode: 1{threads} }}"));
        let live = place.start(&place.write("pipeline.yaml", text), &[]);
        live.listens();
        let environment = live.of_system("environ");
        assert_eq!(
            environment
                .split('\0')
                .find(|line| line.starts_with("OMP_WAIT_POLICY=")),
            policy
        );
        assert_eq!(live.of_system("comm"), "opusflow\n");
        live.signal("INT");
        live.wait().ended(0);
    }
}
