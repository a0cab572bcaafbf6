//! The section `kafka`: brokers, encoding, registry, and librdkafka's own settings.

use super::reader::{SectionReader, is_name};
use crate::config::{Params, Provenance, Secret, Value, nearest};
use crate::pipeline::check::draft::StageDraft;
use crate::pipeline::check::values::text_of;
use crate::pipeline::plan::{BrokersPlan, KafkaPlan};
use crate::stage::Endpoint;

/// The word for the brokers inside this process.
const EMBEDDED: &str = "embedded";

impl SectionReader<'_> {
    /// `Some(None)`: there is no Kafka, and none is needed.
    pub fn kafka(&mut self, top: &Params, drafts: &[StageDraft<'_>]) -> Option<Option<KafkaPlan>> {
        let needs = drafts.iter().find(|draft| {
            draft
                .kind
                .is_some_and(|kind| kind.endpoint == Endpoint::Kafka)
        });
        let Some(kafka) = top.opt_object("kafka") else {
            if let Some(stage) = needs.filter(|_| self.root.entry("kafka").is_none()) {
                let problem = self.problems.add(
                    stage.at,
                    format!(
                        "`{}` delivers to Kafka, but there is no `kafka` section",
                        stage.id
                    ),
                );
                problem
                    .help("add `kafka: { brokers: embedded }`, or the addresses of your brokers");
            }
            return Some(None);
        };
        self.brokers(kafka);
        self.encoding(kafka);
        self.namespace(kafka);
        self.properties(kafka);
        plan(kafka).map(Some)
    }

    fn namespace(&mut self, kafka: &Params) {
        let namespace = kafka.text("namespace");
        if !is_name(namespace) {
            let help = "letters, digits, `.`, `-` and `_`, at most 64";
            self.problems
                .add(
                    self.at(&["kafka", "namespace"]),
                    format!("`{namespace}` cannot begin a topic's name"),
                )
                .help(help);
        }
    }

    fn brokers(&mut self, kafka: &Params) {
        let (brokers, at) = (kafka.text("brokers"), self.at(&["kafka", "brokers"]));
        let embedded = **brokers == *EMBEDDED;
        if embedded
            && matches!(
                kafka.setting("brokers").map(|setting| &setting.provenance),
                Some(Provenance::Environment(..))
            )
        {
            let help = "so that an unset variable never sends records nowhere";
            self.problems
                .add(
                    at,
                    "`embedded` must be written out, not come from a variable",
                )
                .help(help);
        }
        for address in brokers.split(',').map(str::trim).filter(|_| !embedded) {
            if address
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            {
                let help = match nearest(address, &[EMBEDDED]) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => "write HOST:PORT, with commas between several".to_owned(),
                };
                self.problems
                    .add(at, format!("`{address}` is not the address of a broker"))
                    .help(help);
            }
        }
    }

    /// What the encoding needs of the registry, and the registry itself.
    fn encoding(&mut self, kafka: &Params) {
        let embedded = **kafka.text("brokers") == *EMBEDDED;
        let encoding_at = self.at(&["kafka", "encoding"]);
        let registry = kafka.opt_object("registry");
        match (&**kafka.text("encoding"), embedded, registry) {
            ("avro_registry", true, _) => {
                let help = "write `encoding: avro` or `encoding: json`";
                self.problems
                    .add(encoding_at, "the embedded broker has no schema registry")
                    .help(help);
            }
            ("avro_registry", false, None) => {
                self.problems
                    .add(encoding_at, "`avro_registry` needs a registry")
                    .help("add `registry: { url: ... }`");
            }
            _ => {}
        }
        let Some(registry) = registry else { return };
        let (url, at) = (registry.text("url"), self.at(&["kafka", "registry", "url"]));
        if !matches!(
            url::Url::parse(url).as_ref().map(url::Url::scheme),
            Ok("http" | "https")
        ) {
            // What stands there may hold a password, and is not repeated.
            self.problems
                .add(at, "this is not the URL of a registry")
                .help("it begins with `http://` or `https://`");
        }
        if registry.opt_secret("password").is_some() && registry.opt_text("user").is_none() {
            self.problems.add(
                self.at(&["kafka", "registry", "password"]),
                "the registry's `password` needs a `user`",
            );
        }
    }

    /// What is ours to set, and what must not be printed.
    fn properties(&mut self, kafka: &Params) {
        const OURS: [&str; 7] = [
            "bootstrap.servers",
            "metadata.broker.list",
            "enable.idempotence",
            "acks",
            "request.required.acks",
            "message.timeout.ms",
            "partitioner",
        ];
        for section in ["properties", "secrets"] {
            for (name, _) in kafka.map(section) {
                let at = self.at(&["kafka", section, name]);
                let secret = name.contains("password")
                    || name.contains("secret")
                    || name.ends_with(".key.pem");
                if OURS.contains(&name.as_str()) {
                    let help = "at-least-once delivery and the order of records rest on it";
                    self.problems
                        .add(at, format!("`{name}` is set by opusflow"))
                        .help(help);
                } else if secret && section == "properties" {
                    self.problems.hide(at);
                    self.problems
                        .add(at, format!("`{name}` would be printed"))
                        .help("put it under `secrets`");
                }
            }
        }
    }
}

/// The plan of a section that was checked.
fn plan(kafka: &Params) -> Option<KafkaPlan> {
    let registry = kafka.opt_object("registry");
    let topics = kafka.object("create_topics");
    let texts = |key: &str| {
        kafka
            .map(key)
            .iter()
            .map(|(name, value)| (name.clone(), text_of(value).to_owned()))
            .collect()
    };
    let secrets = kafka
        .map("secrets")
        .iter()
        .filter_map(|(name, value)| match value {
            Value::Secret(secret) => Some((name.clone(), secret.clone())),
            _ => None,
        });
    let number = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
    Some(KafkaPlan {
        brokers: match &**kafka.text("brokers") {
            EMBEDDED => BrokersPlan::Embedded,
            addresses => BrokersPlan::Addresses(addresses.to_owned()),
        },
        namespace: kafka.text("namespace").to_string(),
        encoding: kafka.text("encoding").parse().ok()?,
        registry: registry.map(|registry| registry.text("url").to_string()),
        registry_auth: registry.and_then(|registry| {
            let password = registry
                .opt_secret("password")
                .cloned()
                .unwrap_or_else(|| Secret::new(""));
            Some((registry.opt_text("user")?.to_string(), password))
        }),
        topics: topics.text("policy").parse().ok()?,
        partitions: number(topics.int("partitions")),
        replication: number(topics.int("replication")),
        address_file: kafka.text("address_file").to_string(),
        in_flight: kafka.bytes("in_flight"),
        properties: texts("properties"),
        secrets: secrets.collect(),
    })
}
