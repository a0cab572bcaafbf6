//! What a run says at its start and at its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::output::print;
use super::progress_bars::Bars;
use crate::broker::Embedded;
use crate::codec;
use crate::error::{Error, Result};
use crate::packet::{Balance, PayloadKind};
use crate::pipeline::{Assembled, Plan, SessionReport, Summary};
use crate::stage::{Endpoint, Role};
use crate::telemetry::Snapshot;

/// Says where the embedded broker is and how to read from it, and leaves its address in a file.
pub(super) fn broker(plan: &Plan, embedded: &Embedded, bars: &Bars) -> Result<()> {
    let Some(kafka) = &plan.kafka else {
        return Ok(());
    };
    let address = embedded.bootstrap();
    let file = Path::new(&kafka.address_file);
    let unwritable = |error| Error::unwritable(file, error, "`kafka.address_file`");
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(unwritable)?;
    }
    fs::write(file, format!("{address}\n")).map_err(unwritable)?;
    let text = format!(
        "embedded broker at {address} (also in {}); it keeps the last 5 MiB of a topic\n{}\n",
        file.display(),
        how_to_read(address, &kafka.namespace, &plan.kafka_records().records)
    );
    (bars.printer())(&text)
        .map_err(|error| Error::external("cannot write to standard output").because(error))
}

/// How to read the records of the pipeline: captions by their script, others by any client.
fn how_to_read(address: &str, namespace: &str, records: &BTreeSet<PayloadKind>) -> String {
    if records.contains(&PayloadKind::Caption) {
        return format!(
            "read the captions as they come, in a second terminal:\n\n    .venv/bin/python \
             ops/read_captions.py {address} --namespace {namespace}\n"
        );
    }
    let topics: Vec<_> = records
        .iter()
        .map(|kind| codec::topic(namespace, *kind))
        .collect();
    match topics.first() {
        Some(first) => format!(
            "its topics: {}; read one in a second terminal, with any client of Kafka:\n\n    kcat \
             -b {address} -t {first}\n",
            topics.join(", ")
        ),
        None => String::new(),
    }
}

/// Says what came of the run: the ledger, the records, the cache, the places of results.
pub(super) fn summary(
    plan: &Plan,
    summary: &Summary,
    assembled: &Assembled,
    snapshot: &Snapshot,
    elapsed: Duration,
) -> Result<()> {
    let mut text = String::new();
    for session in &summary.sessions {
        text.push_str(&self::session(session));
        video_processed(session, snapshot);
    }
    for (op, stats) in &assembled.deps.cache.stats().ops {
        let (memory, redis, computed) = (stats.memory, stats.redis, stats.misses);
        text.push_str(&format!(
            "\ncache {op}: {memory} from memory, {redis} from Redis, {computed} computed\n"
        ));
    }
    for stage in plan
        .stages
        .iter()
        .filter(|stage| stage.kind.role() == Role::Sink && stage.kind.endpoint == Endpoint::Files)
    {
        text.push_str(&format!("\nresults in {}:\n", stage.params.text("path")));
        for path in files(Path::new(&**stage.params.text("path")), summary) {
            text.push_str(&format!("  {path}\n"));
        }
    }
    let errors = summary
        .errors
        .iter()
        .chain(summary.sessions.iter().flat_map(|session| &session.errors));
    for error in errors {
        text.push_str(&format!("\nerror: {error}\n"));
    }
    print(&text)?;
    closing(summary.sessions.len(), snapshot, elapsed)
}

/// The last line of a run.
pub(super) fn closing(streams: usize, snapshot: &Snapshot, elapsed: Duration) -> Result<()> {
    let (seconds, peak) = (elapsed.as_secs_f64(), snapshot.peak_rss >> 20);
    print(&format!(
        "\nstreams: {streams}, {seconds:.1} s, peak memory {peak} MiB\n"
    ))
    .map(drop)
}

fn session(session: &SessionReport) -> String {
    let mut text = format!(
        "\n{}  {} after {:.1} s\n",
        session.stream,
        session.reason,
        session.elapsed.as_secs_f64()
    );
    for (view, balance) in &session.ledger {
        text.push_str(&format!("  {view:<12} {}\n", terms(balance)));
    }
    if session.lost_in_decoding > 0 {
        text.push_str(&format!(
            "  lost in decoding: {} frames\n",
            session.lost_in_decoding
        ));
    }
    for (destination, records) in &session.records {
        text.push_str(&format!("  {records:>8}  {destination}\n"));
    }
    text
}

fn terms(balance: &Balance) -> String {
    let dropped: u64 = balance.dropped.values().sum();
    let reasons: Vec<_> = balance
        .dropped
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let reasons = if reasons.is_empty() {
        String::new()
    } else {
        format!(" ({})", reasons.join(", "))
    };
    let leaked = if balance.leaked > 0 {
        format!(" + {} LEAKED", balance.leaked)
    } else {
        String::new()
    };
    format!(
        "{} ingested = {} delivered + {} absorbed + {dropped} dropped{reasons} + {} dead-lettered \
         + {} in flight{leaked}",
        balance.ingested,
        balance.delivered,
        balance.absorbed,
        balance.dead_lettered,
        balance.in_flight
    )
}

/// One line for machines.
fn video_processed(session: &SessionReport, snapshot: &Snapshot) {
    let frames: u64 = session
        .ledger
        .values()
        .map(|balance| balance.ingested)
        .sum();
    tracing::info!(
        stream = %session.stream,
        reason = session.reason,
        seconds = session.elapsed.as_secs_f64(),
        frames,
        memory_bytes = snapshot.rss,
        gpu_busy = snapshot.gpu_busy.unwrap_or(0.0),
        "video_processed"
    );
}

/// The files in the folders of the run's streams, pictures counted.
fn files(root: &Path, summary: &Summary) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(folders) = fs::read_dir(root) else {
        return found;
    };
    for folder in folders
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !summary
            .sessions
            .iter()
            .any(|session| *session.stream == *name)
        {
            continue;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.push(format!(
                    "{}/ ({} files)",
                    path.display(),
                    fs::read_dir(&path).map_or(0, Iterator::count)
                ));
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_suggested_that_fits_the_topics() {
        let read =
            |kinds: &[PayloadKind]| how_to_read("h:1", "media", &kinds.iter().copied().collect());
        let both = read(&[PayloadKind::Segment, PayloadKind::Caption]);
        assert!(
            both.contains("read_captions.py h:1 --namespace media"),
            "{both}"
        );
        let segments = read(&[PayloadKind::Segment]);
        assert!(
            segments.contains("kcat -b h:1 -t media.segments.v1"),
            "{segments}"
        );
        assert!(!segments.contains("captions"), "{segments}");
    }
}
