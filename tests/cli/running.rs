//! What a run tells while it runs: metrics on a port, logs as JSON.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::live::From;
use crate::support::pipeline::generated;
use crate::support::{Place, json_lines, service};

const SINK: &str = "  - { id: files, kind: file, inputs: [thinned], with: { path: ./out, formats: [jsonl] } }\n";

#[test]
fn metrics_are_served_while_it_runs() {
    let place = Place::new();
    let address = format!("127.0.0.1:{}", service::free_port());
    let text = generated(&format!("telemetry: {{ metrics: \"{address}\" }}"), "live: true", SINK);
    let live = place.start(&place.write("pipeline.yaml", text), &[]);
    let line = live.line(From::Stderr, |line| line.contains("metrics are served"));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["address"], *address);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let served = get(&address, "/metrics");
    live.signal("INT");
    let run = live.wait().ended(0);

    let mut samples: BTreeMap<&str, f64> = BTreeMap::new();
    for line in served.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("opusflow_"), "{line}");
        samples.insert(name, value.parse().unwrap());
    }
    let sum = |name: &str, label: &str| -> f64 {
        let of = |key: &&&str| key.split('{').next() == Some(name) && key.contains(label);
        samples.keys().filter(of).map(|key| samples[*key]).sum()
    };
    assert!(sum("opusflow_media_frames_total", "") > 10.0, "{served}");
    assert!(sum("opusflow_telemetry_process_resident_bytes", "") > 1e6, "{served}");
    assert!(sum("opusflow_stage_in_packets_total", "thinned") > 10.0, "{served}");
    assert!(sum("opusflow_stage_out_packets_total", "thinned") > 5.0, "{served}");
    assert!(sum("opusflow_stages_sink_records_total", "files") > 5.0, "{served}");
    assert!(sum("opusflow_stages_end_to_end_seconds_count", "") > 5.0, "{served}");
    assert!(run.balance("all").ingested as f64 >= sum("opusflow_stage_in_packets_total", "thinned"));
}

/// The body of an answer to GET.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[test]
fn logs_are_json_with_one_line_for_each_stream() {
    let place = Place::new();
    let run = place.run(&place.write("pipeline.yaml", generated("", "frames: 30, streams: 3", SINK)), &[]).ended(0);
    let lines = json_lines(&run.stderr);
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{}", run.stderr);
    let processed: BTreeMap<&str, &Value> =
        lines.iter().filter(|line| line["message"] == "video_processed").map(|line| (line["stream"].as_str().unwrap(), line)).collect();
    assert_eq!(processed.keys().copied().collect::<Vec<_>>(), ["bars-0", "bars-1", "bars-2"]);
    assert_eq!(lines.iter().filter(|line| line["message"] == "video_processed").count(), 3);
    for line in processed.values() {
        assert_eq!((line["frames"].as_u64(), line["reason"].as_str()), (Some(30), Some("end_of_stream")));
        assert!(
            line["seconds"].as_f64().unwrap() > 0.0 && line["memory_bytes"].as_u64().unwrap() > 1 << 20 && line["gpu_busy"].is_number()
        );
    }
    assert_eq!(run.ledger().len(), 3);
}
