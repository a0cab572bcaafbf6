//! Records read back, by the schemas of this build: for tests, checks and tools. The result has the
//! shape that the JSON encoding writes.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value as Json};

use super::schema::{fingerprint, parse};
use crate::error::{Error, Result};
use crate::packet::PayloadKind;

/// Reads Avro records of this build's schemas.
pub struct Decoder(Vec<Schema>);

impl Decoder {
    /// Parses every schema.
    ///
    /// # Errors
    /// A bug, where a schema of this build cannot be parsed.
    pub fn build() -> Result<Self> {
        PayloadKind::ALL
            .into_iter()
            .map(parse)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Reads a record in Avro single-object encoding and says which kind it is.
    ///
    /// # Errors
    /// A model error where the bytes are not such a record, or of a schema that this build does not
    /// have.
    pub fn single_object(&self, record: &[u8]) -> Result<(PayloadKind, Json)> {
        let Some(([0xC3, 0x01, print @ ..], body)) = record.split_first_chunk::<10>() else {
            return Err(Error::model(
                "the record is not in Avro single-object encoding: it does not open with C3 01",
            ));
        };
        let print = u64::from_le_bytes(*print);
        let kind = PayloadKind::ALL
            .into_iter()
            .find(|kind| fingerprint(*kind) == print)
            .ok_or_else(|| {
                Error::model(format!(
                    "the record's schema {print:016x} is not one of this build"
                ))
            })?;
        Ok((kind, self.body(kind, body)?))
    }

    /// Reads a record of `kind` in the Confluent wire format and says its schema's id. The id is
    /// not looked up: the schema is this build's.
    ///
    /// # Errors
    /// A model error where the bytes are not such a record.
    pub fn registry(&self, kind: PayloadKind, record: &[u8]) -> Result<(u32, Json)> {
        let Some(([0, id @ ..], body)) = record.split_first_chunk::<5>() else {
            return Err(Error::model(
                "the record is not in the Confluent wire format: it does not open with 00",
            ));
        };
        Ok((u32::from_be_bytes(*id), self.body(kind, body)?))
    }

    fn body(&self, kind: PayloadKind, mut body: &[u8]) -> Result<Json> {
        let schema = &self.0[kind as usize];
        let value = GenericDatumReader::builder(schema)
            .build()
            .and_then(|reader| reader.read_value(&mut body))
            .map_err(|error| {
                Error::model(format!("the record is not a {}", kind.as_str())).because(error)
            })?;
        if !body.is_empty() {
            return Err(Error::model(format!(
                "the {} record is followed by {} bytes that do not belong to it",
                kind.as_str(),
                body.len()
            )));
        }
        Ok(json(value))
    }
}

fn json(value: Value) -> Json {
    match value {
        Value::Boolean(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::Long(value) | Value::TimestampMicros(value) => value.into(),
        // Through its shortest decimal notation, as the JSON encoding writes it: 0.9, not
        // 0.8999999761581421.
        Value::Float(value) => value
            .to_string()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or(Json::Null, Json::Number),
        Value::Bytes(value) => STANDARD.encode(value).into(),
        Value::String(value) | Value::Enum(_, value) => value.into(),
        Value::Union(_, value) => json(*value),
        Value::Array(items) => items.into_iter().map(json).collect(),
        Value::Map(entries) => Json::Object(
            entries
                .into_iter()
                .map(|(key, value)| (key, json(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Record(fields) => Json::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, json(value)))
                .collect::<Map<_, _>>(),
        ),
        // No schema of ours uses another type.
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, SchemaIds, samples};

    #[test]
    fn every_record_says_the_same_in_every_encoding() {
        let decoder = Decoder::build().unwrap();
        for packet in samples::packets() {
            let kind = packet.payload.kind();
            let plain: Json = serde_json::from_slice(&Codec::json().encode(&packet)).unwrap();
            let single = decoder
                .single_object(&Codec::avro().encode(&packet))
                .unwrap();
            assert_eq!(single, (kind, plain.clone()), "{kind:?}");
            let framed = decoder
                .registry(kind, &Codec::registry(SchemaIds::all(77)).encode(&packet))
                .unwrap();
            assert_eq!(framed, (77, plain), "{kind:?}");
        }
    }

    #[test]
    fn fields_hold_what_the_packet_holds() {
        let record: Json =
            serde_json::from_slice(&Codec::json().encode(&samples::packet(PayloadKind::Caption)))
                .unwrap();
        assert_eq!(record["text"], "A \"quiet\" street, früh");
        assert_eq!(
            record["tags"][0],
            serde_json::json!({ "name": "street", "score": 0.9 })
        );
        assert_eq!(record["finish"], "length");
        let meta = &record["meta"];
        assert_eq!(meta["stream"], "studio 1/ü");
        assert_eq!(
            meta["labels"],
            serde_json::json!({ "channel": "one", "place": "Köln" })
        );
        assert_eq!(meta["time_source"], "ntp");
        assert_eq!(meta["start"], 1_500_000_000);
        assert_eq!(meta["event_time"], samples::EVENT_TIME);
        assert_eq!(meta["parents"][0], "07070707070707070707070707070707");
        assert_eq!(meta["model"]["precision"], "bf16");
        assert_eq!(meta["final"], true);
        assert_eq!(meta["id"].as_str().unwrap().len(), 32);
    }

    #[test]
    fn absent_things_are_plain_nulls() {
        let event: Json =
            serde_json::from_slice(&Codec::json().encode(&samples::packet(PayloadKind::Event)))
                .unwrap();
        assert_eq!(
            (&event["gap"], event["kind"].as_str()),
            (&Json::Null, Some("ended"))
        );
        assert_eq!(event["ended"]["ledger"]["frames"]["dropped"]["stale"], 2);
        let picture: Json =
            serde_json::from_slice(&Codec::json().encode(&samples::packet(PayloadKind::Picture)))
                .unwrap();
        assert_eq!(
            (
                &picture["data"],
                &picture["expires_at"],
                picture["bytes"].as_i64()
            ),
            (&Json::Null, &Json::Null, Some(5))
        );
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        let decoder = Decoder::build().unwrap();
        let good = Codec::avro().encode(&samples::packet(PayloadKind::Segment));
        assert!(decoder.single_object(b"{}").is_err());
        assert!(decoder.single_object(&good[..good.len() - 1]).is_err());
        assert!(
            decoder
                .single_object(&[&good[..], &[0]].concat())
                .unwrap_err()
                .to_string()
                .contains("1 bytes")
        );
        let mut stranger = good;
        stranger[3] ^= 1;
        assert!(
            decoder
                .single_object(&stranger)
                .unwrap_err()
                .to_string()
                .contains("not one of this build")
        );
    }
}
