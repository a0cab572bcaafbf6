//! Packets as records: Avro from schemas/, the Confluent wire format, JSON.
