//! Packets as the bytes of their records, in the framing of each encoding.

use super::encoding::Encoding;
use super::record::write as write_record;
use super::schema::fingerprint;
use super::schema_ids::SchemaIds;
use super::write::{AvroWriter, JsonWriter};
use crate::packet::{Packet, Payload};

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
            Framing::Json => write_record(packet, &mut JsonWriter::new(out)),
        }
    }
}

/// The Avro body alone, without a header.
pub(super) fn body(packet: &Packet, out: &mut Vec<u8>) {
    write_record(packet, &mut AvroWriter::new(out));
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
