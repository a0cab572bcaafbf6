//! Packets as records: Avro by the schemas in `schemas/`, in the Confluent wire format or alone,
//! and JSON; the headers, keys and topics of their messages; the registry that holds the schemas. A
//! record is described once, in `record`, for every encoding.

mod container;
mod decode;
mod encode;
mod encoding;
mod message;
mod record;
mod registry;
#[cfg(test)]
pub(crate) mod samples;
mod schema;
mod schema_ids;
mod write;

pub(crate) use container::ObjectContainer;
pub use decode::Decoder;
pub use encode::Codec;
pub use encoding::Encoding;
pub(crate) use message::{dead_letter_topic, topic, topic_of};
pub use message::{headers, key, timestamp_ms};
pub(crate) use registry::{Registry, RegistrySettings, Verdict};
pub(crate) use schema::{fingerprint, full_name, schema_text};
pub use schema_ids::SchemaIds;

pub use crate::packet::PayloadKind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_read_by_their_words() {
        for encoding in Encoding::ALL {
            assert_eq!(encoding.as_str().parse::<Encoding>().unwrap(), encoding);
        }
        assert!(
            "protobuf"
                .parse::<Encoding>()
                .unwrap_err()
                .to_string()
                .contains("avro_registry")
        );
    }

    #[test]
    fn frames_open_with_the_marks_of_their_encoding() {
        let packet = samples::packet(PayloadKind::Caption);
        let single = Codec::avro().encode(&packet);
        assert_eq!(single[..2], [0xC3, 0x01]);
        assert_eq!(
            single[2..10],
            fingerprint(PayloadKind::Caption).to_le_bytes()
        );
        let framed = Codec::registry(SchemaIds::all(0x0102_0304)).encode(&packet);
        assert_eq!(framed[..5], [0, 1, 2, 3, 4]);
        assert_eq!(framed[5..], single[10..], "the body is the same in both");
        assert_eq!(Codec::json().encode(&packet)[0], b'{');
    }

    #[test]
    fn dead_letters_travel_under_the_id_of_their_own_subject() {
        let mut ids = SchemaIds::all(1);
        ids.set(PayloadKind::Frame, true, 9);
        ids.set(PayloadKind::Frame, false, 8);
        assert_eq!(ids.of(&samples::packet(PayloadKind::DeadLetter).payload), 9);
        assert_eq!(ids.of(&samples::packet(PayloadKind::Frame).payload), 8);
    }
}
