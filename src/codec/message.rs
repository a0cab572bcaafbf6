//! What surrounds a record in Kafka: topic, key, timestamp and headers, so that consumers route and
//! filter without decoding.

use jiff::Timestamp;

use super::encoding::Encoding;
use super::schema::{fingerprint, full_name};
use crate::packet::{Head, Packet, Payload, PayloadKind, RecordId};

/// The topic of the records of `kind`: `<namespace>.<plural>.v1`.
pub fn topic(namespace: &str, kind: PayloadKind) -> String {
    format!("{namespace}.{}.v1", kind.plural())
}

/// The topic of the dead letters about records of `kind`: `<namespace>.<plural>.v1.dlq`.
pub fn dead_letter_topic(namespace: &str, kind: PayloadKind) -> String {
    format!("{namespace}.{}.v1.dlq", kind.plural())
}

/// The topic that a packet with this payload goes to.
pub fn topic_of(namespace: &str, payload: &Payload) -> String {
    match payload {
        Payload::DeadLetter(letter) => dead_letter_topic(namespace, letter.record),
        payload => topic(namespace, payload.kind()),
    }
}

/// The key of the message: the stream's id, so that a stream keeps its order.
pub fn key(packet: &Packet) -> &str {
    &packet.head.channel.stream.id
}

/// The timestamp of the message: event time in milliseconds since 1970.
pub fn timestamp_ms(packet: &Packet) -> i64 {
    packet.head.event_time.div_euclid(1000)
}

/// The media type of records in `encoding`.
pub const fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Avro => "application/avro; encoding=single-object",
        Encoding::AvroRegistry => "application/avro; encoding=confluent",
        Encoding::Json => "application/json",
    }
}

/// The headers of the message: content type, the schema's fingerprint (16 hexadecimal digits), W3C
/// `traceparent`, the attributes of CloudEvents' Kafka binding, stage and pipeline.
pub fn headers(packet: &Packet, encoding: Encoding) -> Vec<(&'static str, String)> {
    let (head, kind) = (&*packet.head, packet.payload.kind());
    let id = packet.id();
    vec![
        ("content-type", content_type(encoding).to_owned()),
        ("schema_fingerprint", format!("{:016x}", fingerprint(kind))),
        ("traceparent", trace_parent(head, id)),
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", id.to_string()),
        ("ce_type", full_name(kind).to_owned()),
        ("ce_source", source(head)),
        ("ce_time", time(head)),
        ("opusflow_stage", head.channel.origin.stage.to_string()),
        (
            "opusflow_pipeline",
            head.channel.origin.pipeline.to_string(),
        ),
    ]
}

/// One trace for each epoch of a stream, one span for each record; both follow from the ids, so
/// that a repeated record repeats them.
fn trace_parent(head: &Head, id: RecordId) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(head.channel.stream.id.as_bytes())
        .update(&head.epoch.to_le_bytes());
    let mut trace = [0; 16];
    trace.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    let mut span = [0; 8];
    span.copy_from_slice(&id.0[..8]);
    format!(
        "00-{:032x}-{:016x}-01",
        u128::from_be_bytes(trace),
        u64::from_be_bytes(span)
    )
}

/// A URI reference, as CloudEvents wants it.
fn source(head: &Head) -> String {
    let mut source = String::from("/pipelines/");
    percent_encode(&head.channel.origin.pipeline, &mut source);
    source.push_str("/streams/");
    percent_encode(&head.channel.stream.id, &mut source);
    source
}

/// RFC 3339, by microseconds; a time beyond the calendar's end becomes the calendar's end.
fn time(head: &Head) -> String {
    let time = Timestamp::from_microsecond(head.event_time).unwrap_or(if head.event_time < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    format!("{time:.6}")
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::codec::samples;

    #[test]
    fn topics_follow_the_kind_of_record() {
        assert_eq!(
            topic_of("media", &samples::packet(PayloadKind::Caption).payload),
            "media.captions.v1"
        );
        assert_eq!(
            topic_of("media", &samples::packet(PayloadKind::DeadLetter).payload),
            "media.frames.v1.dlq"
        );
    }

    #[test]
    fn headers_tell_the_record_without_its_body() {
        let packet = samples::packet(PayloadKind::Segment);
        let headers: BTreeMap<_, _> = headers(&packet, Encoding::AvroRegistry)
            .into_iter()
            .collect();
        assert_eq!(
            headers["content-type"],
            "application/avro; encoding=confluent"
        );
        assert_eq!(
            headers["schema_fingerprint"],
            format!("{:016x}", fingerprint(PayloadKind::Segment))
        );
        assert_eq!(headers["ce_id"], packet.id().to_string());
        assert_eq!(headers["ce_type"], "dev.opusflow.v1.Segment");
        assert_eq!(
            headers["ce_source"],
            "/pipelines/newsroom/streams/studio%201%2F%C3%BC"
        );
        assert_eq!(headers["ce_time"], "2026-01-02T03:04:05.678901Z");
        assert_eq!(
            (&*headers["opusflow_stage"], &*headers["opusflow_pipeline"]),
            ("captions", "newsroom")
        );
        assert_eq!(
            (key(&packet), timestamp_ms(&packet)),
            ("studio 1/ü", 1_767_323_045_678)
        );
    }

    #[test]
    fn a_trace_spans_an_epoch_of_a_stream() {
        let parent = |packet: &Packet| {
            headers(packet, Encoding::Json)
                .into_iter()
                .find(|(name, _)| *name == "traceparent")
                .unwrap()
                .1
        };
        let (first, second) = (
            samples::packet(PayloadKind::Segment),
            samples::packet(PayloadKind::Caption),
        );
        let parts = |text: &str| text.split('-').map(str::to_owned).collect::<Vec<_>>();
        let (a, b) = (parts(&parent(&first)), parts(&parent(&second)));
        assert_eq!(
            a.iter().map(String::len).collect::<Vec<_>>(),
            [2, 32, 16, 2]
        );
        assert_eq!(a[1], b[1], "one trace");
        assert_ne!(a[2], b[2], "two spans");
        assert_eq!(parent(&first), parent(&first.split()), "repeatable");
        let mut later = first;
        Arc::get_mut(&mut later.head).unwrap().epoch += 1;
        assert_ne!(
            parts(&parent(&later))[1],
            a[1],
            "another epoch, another trace"
        );
    }

    #[test]
    fn times_out_of_any_calendar_still_have_a_header() {
        let mut packet = samples::packet(PayloadKind::Segment);
        Arc::get_mut(&mut packet.head).unwrap().event_time = i64::MAX;
        assert!(
            headers(&packet, Encoding::Json)
                .iter()
                .any(|(name, value)| *name == "ce_time" && value.starts_with("9999"))
        );
    }
}
