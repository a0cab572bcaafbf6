//! The encodings, by their words in the YAML.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

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
