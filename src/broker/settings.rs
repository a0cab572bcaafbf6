//! Where Kafka is and how to talk to it. Whatever the user writes under `properties` goes to
//! librdkafka as it is, but for what the promises of the producer rest on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::embedded::Embedded;
use crate::error::{Error, Result};
use crate::redact::{HIDDEN, is_secret_name, redact};

/// Properties that the producer sets itself, each with what rests on it.
const RESERVED: [(&str, &str); 10] = [
    ("bootstrap.servers", "`kafka.brokers` sets it"),
    ("metadata.broker.list", "`kafka.brokers` sets it"),
    (
        "enable.idempotence",
        "it is always on: order within a stream rests on it",
    ),
    ("acks", "it is always `all`: receipts rest on it"),
    (
        "request.required.acks",
        "it is always `all`: receipts rest on it",
    ),
    (
        "message.timeout.ms",
        "it is always 0: outages are waited out",
    ),
    (
        "delivery.timeout.ms",
        "it is always 0: outages are waited out",
    ),
    (
        "queue.buffering.max.messages",
        "`in_flight` bounds the queue",
    ),
    ("queue.buffering.max.kbytes", "`in_flight` bounds the queue"),
    ("transactional.id", "the producer does not use transactions"),
];

/// Properties that the user may change.
const DEFAULTS: [(&str, &str); 4] = [
    ("compression.type", "zstd"),
    ("partitioner", "murmur2_random"),
    ("linger.ms", "5"),
    ("client.id", "opusflow"),
];

/// Which brokers.
#[derive(Clone)]
pub enum Brokers {
    /// `host:port`, separated by commas.
    Addresses(String),
    /// The broker inside this process.
    Embedded(Arc<Embedded>),
}

impl Brokers {
    /// What a client needs to find them.
    pub fn bootstrap(&self) -> &str {
        match self {
            Brokers::Addresses(addresses) => addresses,
            Brokers::Embedded(embedded) => embedded.bootstrap(),
        }
    }
}

impl fmt::Debug for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Brokers::Addresses(addresses) => f.write_str(addresses),
            Brokers::Embedded(embedded) => write!(f, "embedded at {}", embedded.bootstrap()),
        }
    }
}

/// What to do about topics at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// Fail when one is missing.
    #[default]
    Verify,
    /// Create those that are missing.
    Create,
    /// Do not look.
    Never,
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "verify" => Ok(Policy::Verify),
            "create" => Ok(Policy::Create),
            "never" => Ok(Policy::Never),
            _ => Err(Error::config(format!("unknown policy `{word}`"))
                .hint("one of verify, create, never")),
        }
    }
}

/// How topics come to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopics {
    /// What to do at start.
    pub policy: Policy,
    /// Partitions of a topic that is created; none for the broker's default.
    pub partitions: Option<u32>,
    /// Replicas of a topic that is created; none for the broker's default.
    pub replication: Option<u32>,
}

impl Default for CreateTopics {
    fn default() -> Self {
        Self {
            policy: Policy::Verify,
            partitions: None,
            replication: None,
        }
    }
}

/// How to talk to Kafka.
#[derive(Clone)]
pub struct Settings {
    /// Which brokers.
    pub brokers: Brokers,
    /// The first word of every topic.
    pub namespace: String,
    /// Properties for librdkafka.
    pub properties: BTreeMap<String, String>,
    /// Properties for librdkafka that are never shown, already resolved.
    pub secrets: BTreeMap<String, String>,
    /// How topics come to be.
    pub create_topics: CreateTopics,
    /// Bytes of messages that may await their acknowledgement; who sends more waits. Twice as much
    /// memory may be used: once for sending, once for sending again.
    pub in_flight: usize,
}

impl Settings {
    /// These brokers, topics under `namespace`, 32 MiB in flight.
    pub fn new(brokers: Brokers, namespace: impl Into<String>) -> Self {
        Self {
            brokers,
            namespace: namespace.into(),
            properties: BTreeMap::new(),
            secrets: BTreeMap::new(),
            create_topics: CreateTopics::default(),
            in_flight: 32 << 20,
        }
    }

    /// The configuration of a client, checked.
    ///
    /// # Errors
    /// A config error where a property is unknown, has a value that librdkafka refuses, or is one
    /// that the producer sets itself.
    pub fn client_config(&self) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS {
            config.set(key, value);
        }
        for (key, value) in self.properties.iter().chain(&self.secrets) {
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
                return Err(
                    Error::config(format!("kafka property `{key}` cannot be set")).hint(*why),
                );
            }
            config.set(key, value);
        }
        config.set("bootstrap.servers", self.brokers.bootstrap());
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0");
        // The bound is our own, in bytes; librdkafka's would fail a send instead of making it wait.
        config
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2147483647");
        let debug = tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG);
        config.set_log_level(if debug {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Warning
        });
        match config.create_native_config() {
            Ok(_) => Ok(config),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// librdkafka's complaint about the configuration, without the value of a secret.
    pub(super) fn refused(&self, error: KafkaError) -> Error {
        let text = match error {
            KafkaError::ClientConfig(_, description, key, _) => {
                format!("property `{key}`: {description}")
            }
            KafkaError::ClientCreation(text) => text,
            other => other.to_string(),
        };
        let named = self.properties.iter();
        let named = named.filter(|(key, _)| is_secret_name(key));
        let secrets = self.secrets.iter().chain(named);
        let text = secrets
            .filter(|(_, secret)| !secret.is_empty())
            .fold(text, |text, (_, secret)| text.replace(secret, HIDDEN));
        Error::config(format!("librdkafka refuses the kafka settings: {text}"))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |key: &String, value: &String| match is_secret_name(key) {
            true => HIDDEN.to_owned(),
            false => redact(value),
        };
        let properties = self.properties.iter();
        let properties: BTreeMap<_, _> = properties
            .map(|(key, value)| (key, hidden(key, value)))
            .collect();
        let secrets: BTreeMap<_, _> = self.secrets.keys().map(|key| (key, HIDDEN)).collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("namespace", &self.namespace)
            .field("properties", &properties)
            .field("secrets", &secrets)
            .field("create_topics", &self.create_topics)
            .field("in_flight", &self.in_flight)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: &str, value: &str) -> Settings {
        let mut settings = Settings::new(Brokers::Addresses("127.0.0.1:1".to_owned()), "media");
        settings.properties.insert(key.to_owned(), value.to_owned());
        settings
    }

    #[test]
    fn properties_reach_librdkafka_and_win_over_defaults() {
        let config = settings("compression.type", "lz4").client_config().unwrap();
        assert_eq!(config.get("compression.type"), Some("lz4"));
        assert_eq!(config.get("partitioner"), Some("murmur2_random"));
        assert_eq!(config.get("message.timeout.ms"), Some("0"));
    }

    #[test]
    fn unknown_and_reserved_properties_are_refused() {
        let error = settings("compresion.type", "lz4")
            .client_config()
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("No such configuration property: \"compresion.type\""),
            "{error}"
        );
        let error = settings("security.protocol", "telnet")
            .client_config()
            .unwrap_err();
        assert!(error.to_string().contains("security.protocol"), "{error}");
        let error = settings("acks", "1").client_config().unwrap_err();
        assert!(error.to_string().contains("receipts rest on it"), "{error}");
        assert_eq!(error.kind(), crate::error::Kind::Config);
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut settings = settings("security.protocol", "SASL_SSL");
        settings
            .secrets
            .insert("sasl.password".to_owned(), "hush".to_owned());
        for (key, value) in [
            ("sasl.password", "hush"),
            ("ssl.key.password", "hush"),
            ("sasl.oauthbearer.client.secret", "hush"),
            (
                "sasl.oauthbearer.token.endpoint.url",
                "https://me:hush@host/x",
            ),
            ("http.proxy", "http://me:hush@host:3128"),
        ] {
            settings.properties.insert(key.to_owned(), value.to_owned());
        }
        let shown = format!("{settings:?}");
        assert!(
            !shown.contains("hush") && shown.contains("SASL_SSL"),
            "{shown}"
        );
        settings.properties.clear();
        settings.secrets.insert(
            "ssl.endpoint.identification.algorithm".to_owned(),
            "hush".to_owned(),
        );
        let error = settings.client_config().unwrap_err().to_string();
        assert!(
            !error.contains("hush") && error.contains("ssl.endpoint.identification.algorithm"),
            "{error}"
        );
    }
}
