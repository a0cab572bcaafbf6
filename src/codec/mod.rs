//! Packets as records: Avro by the schemas in `schemas/`, in the Confluent wire format or alone,
//! and JSON; the headers, keys and topics of their messages; the registry that holds the schemas. A
//! record is described once, in `record`, for every encoding.

mod container;
mod decode;
mod message;
mod record;
mod registry;
#[cfg(test)]
pub(crate) mod samples;
mod schema;
mod write;

use std::fmt;
use std::str::FromStr;

pub use container::ObjectContainer;
pub use decode::Decoder;
pub use message::{content_type, dead_letter_topic, headers, key, timestamp_ms, topic, topic_of};
pub use registry::{Registered, Registry, RegistrySettings, Verdict};
pub use schema::{COMPATIBILITY, fingerprint, full_name, schema_text};

use crate::error::{Error, Result};
pub use crate::packet::PayloadKind;
use crate::packet::{Packet, Payload};
use write::{AvroWriter, JsonWriter};

/// How records become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Avro single-object encoding: a reader finds the schema by its fingerprint.
    Avro,
    /// The Confluent wire format: a reader finds the schema in a registry by its id.
    AvroRegistry,
    /// JSON, one object a record: for eyes and for scripts. Bytes are base64, times are
    /// microseconds.
    Json,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Encoding; 3] = [Encoding::Avro, Encoding::AvroRegistry, Encoding::Json];

    /// The word in the YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encoding::Avro => "avro",
            Encoding::AvroRegistry => "avro_registry",
            Encoding::Json => "json",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.as_str() == word)
            .ok_or_else(|| {
                Error::config(format!("unknown encoding `{word}`"))
                    .hint("one of avro_registry, avro, json")
            })
    }
}

/// The ids that a registry gave to the schemas, one for every kind of record and one for the dead
/// letters of every kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaIds {
    records: [u32; PayloadKind::ALL.len()],
    dead_letters: [u32; PayloadKind::ALL.len()],
}

impl SchemaIds {
    /// The same id everywhere, for registries of one schema and for tests.
    pub const fn all(id: u32) -> Self {
        Self {
            records: [id; PayloadKind::ALL.len()],
            dead_letters: [id; PayloadKind::ALL.len()],
        }
    }

    /// Sets the id of the schema under which records of `kind` travel, or, where `dead`, the dead
    /// letters about them.
    pub fn set(&mut self, kind: PayloadKind, dead: bool, id: u32) {
        let ids = if dead {
            &mut self.dead_letters
        } else {
            &mut self.records
        };
        ids[kind as usize] = id;
    }

    fn of(&self, payload: &Payload) -> u32 {
        match payload {
            Payload::DeadLetter(letter) => self.dead_letters[letter.record as usize],
            payload => self.records[payload.kind() as usize],
        }
    }
}

/// Turns packets into the bytes of their records. Cheap to clone and to share; encoding cannot
/// fail.
#[derive(Debug, Clone)]
pub struct Codec(Framing);

#[derive(Debug, Clone)]
enum Framing {
    SingleObject,
    Registry(SchemaIds),
    Json,
}

impl Codec {
    /// Avro single-object encoding: `C3 01`, the schema's CRC-64-AVRO little-endian, the body.
    pub const fn avro() -> Self {
        Self(Framing::SingleObject)
    }

    /// The Confluent wire format: `00`, the schema's id big-endian, the body.
    pub const fn registry(ids: SchemaIds) -> Self {
        Self(Framing::Registry(ids))
    }

    /// One line of JSON, without the line's end.
    pub const fn json() -> Self {
        Self(Framing::Json)
    }

    /// What it writes.
    pub const fn encoding(&self) -> Encoding {
        match self.0 {
            Framing::SingleObject => Encoding::Avro,
            Framing::Registry(_) => Encoding::AvroRegistry,
            Framing::Json => Encoding::Json,
        }
    }

    /// The record of `packet`.
    pub fn encode(&self, packet: &Packet) -> Vec<u8> {
        let mut out = Vec::with_capacity(capacity(&packet.payload));
        self.encode_into(packet, &mut out);
        out
    }

    /// Appends the record of `packet` to `out`.
    pub fn encode_into(&self, packet: &Packet, out: &mut Vec<u8>) {
        match &self.0 {
            Framing::SingleObject => {
                out.extend_from_slice(&[0xC3, 0x01]);
                out.extend_from_slice(&fingerprint(packet.payload.kind()).to_le_bytes());
                body(packet, out);
            }
            Framing::Registry(ids) => {
                out.push(0);
                out.extend_from_slice(&ids.of(&packet.payload).to_be_bytes());
                body(packet, out);
            }
            Framing::Json => record::write(packet, &mut JsonWriter::new(out)),
        }
    }
}

/// The Avro body alone, without a header.
fn body(packet: &Packet, out: &mut Vec<u8>) {
    record::write(packet, &mut AvroWriter::new(out));
}

/// About as many bytes as the record will need, so that it is written without growing.
fn capacity(payload: &Payload) -> usize {
    const META: usize = 768;
    META + match payload {
        Payload::Embedding(embedding) => {
            embedding.vector.len() * 4 / 3 + 64 * embedding.labels.len()
        }
        Payload::Picture(picture) if picture.inline => picture.data.len() * 4 / 3,
        Payload::Caption(caption) => caption.text.len() + 64 * caption.tags.len(),
        Payload::Transcript(transcript) => transcript.text.len() + 96 * transcript.words.len(),
        _ => 0,
    }
}

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
