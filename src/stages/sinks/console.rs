//! `console`: segments, captions, transcripts and events as lines on standard output, as they come.

use std::sync::Arc;

use async_trait::async_trait;

use crate::packet::{Event, Packet, Payload, PayloadKind};
use crate::stage::{Build, Context, Endpoint, Joins, Lookahead, Print, Sink, StageKind};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "console",
    doc: "Segments, captions, transcripts and events as lines on standard output, as they come, \
          for a person who watches.",
    accepts: &[
        PayloadKind::Segment,
        PayloadKind::Caption,
        PayloadKind::Transcript,
        PayloadKind::Picture,
        PayloadKind::Embedding,
        PayloadKind::Event,
    ],
    emits: &[],
    params: &[],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Sink(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    Ok(Arc::new(ConsoleSink {
        print: Arc::clone(&context.deps.print),
    }))
}

struct ConsoleSink {
    print: Print,
}

#[async_trait]
impl Sink for ConsoleSink {
    fn destination(&self, kind: PayloadKind) -> String {
        format!("console/{}", kind.plural())
    }

    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let text: String = batch.iter().filter_map(line).collect();
        let written = (self.print)(&text);
        let outcome = written
            .map_err(|error| Error::external("cannot write to standard output").because(error));
        vec![outcome; batch.len()]
    }
}

fn line(packet: &Packet) -> Option<String> {
    let span = packet.head.span;
    let place = format!(
        "{} {} - {}",
        packet.head.channel.stream.id,
        clock(span.start),
        clock(span.end)
    );
    Some(match &packet.payload {
        Payload::Segment(segment) => {
            format!(
                "{place}  shot {:>3}  {:<10} {:.2}\n",
                segment.index,
                segment.cut.as_str(),
                segment.confidence
            )
        }
        Payload::Caption(caption) => format!("{place}  {}\n", caption.text.replace('\n', " ")),
        Payload::Transcript(transcript) => format!("{place}  \"{}\"\n", transcript.text.trim()),
        Payload::Picture(picture) => format!("{place}  {} {}\n", picture.role, picture.uri),
        Payload::Embedding(embedding) => {
            let labels: Vec<_> = embedding
                .labels
                .iter()
                .map(|label| format!("{} {:.2}", label.name, label.score))
                .collect();
            format!(
                "{place}  {} numbers  {}\n",
                embedding.dim,
                labels.join(", ")
            )
        }
        Payload::Event(event) => match &**event {
            Event::Gap {
                reason, from, to, ..
            } => {
                format!(
                    "{}  gap of {:.1} s: {reason}\n",
                    packet.head.channel.stream.id,
                    (to - from) as f64 / 1e6
                )
            }
            Event::Ended { reason, .. } => {
                format!("{}  ended: {reason}\n", packet.head.channel.stream.id)
            }
            Event::Started { uri, .. } => {
                format!("{}  started: {uri}\n", packet.head.channel.stream.id)
            }
            Event::Progress { .. } => return None,
        },
        Payload::Frame(_) | Payload::Audio(_) | Payload::DeadLetter(_) => return None,
    })
}

/// Nanoseconds as `m:ss.t`.
fn clock(nanos: u64) -> String {
    let tenths = nanos / 100_000_000;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn clock_counts_minutes() {
        assert_eq!(super::clock(83_460_000_000), "1:23.4");
        assert_eq!(super::clock(0), "0:00.0");
    }
}
