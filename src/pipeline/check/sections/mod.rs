//! Everything but the stages: what the shapes cannot say about `name`, `kafka`, `cache`, `objects`,
//! `threads`, `telemetry` and `models`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::stages::StageDraft;
use super::{text_of, to_usize};
use crate::config::{
    Environment, NameRef, Node, Params, Place, Problems, Provenance, Secret, Value, nearest,
};
use crate::pipeline::effective::redact;
use crate::pipeline::plan::{
    CachePlan, KafkaPlan, MemoryPlan, ObjectsPlan, Plan, StagePlan, TelemetryPlan, ThreadsPlan,
};

mod models;
mod profiles;

pub(super) use profiles::fill as fill_profiles;

pub(super) use models::architectures;

/// The architecture of each model, by the model's name.
pub(super) type Architectures = BTreeMap<String, String>;

/// The checked sections.
pub(super) struct Sections {
    name: String,
    kafka: Option<KafkaPlan>,
    cache: CachePlan,
    objects: ObjectsPlan,
    threads: ThreadsPlan,
    telemetry: TelemetryPlan,
    models: models::Found,
    model_cache: PathBuf,
    memory: MemoryPlan,
    shutdown: Duration,
    progress: Duration,
}

impl Sections {
    pub fn plan(self, stages: Vec<StagePlan>) -> Plan {
        Plan {
            name: self.name.into(),
            config_hash: "".into(),
            kafka: self.kafka,
            cache: self.cache,
            objects: self.objects,
            threads: self.threads,
            shutdown: self.shutdown,
            progress: self.progress,
            telemetry: self.telemetry,
            models: self.models.here,
            absent: self.models.absent,
            model_cache: self.model_cache,
            memory: self.memory,
            stages,
        }
    }
}

/// Checks the sections; None when one of them is wrong, which was said.
pub(super) fn read(
    top: &Params,
    root: &Node,
    drafts: &[StageDraft<'_>],
    mentions: &[NameRef],
    environment: &Environment,
    problems: &mut Problems,
) -> Option<Sections> {
    let mut file = File { root, problems };
    // Each is read before any of them can end this, so that all problems are said.
    let name = file.name(top);
    let kafka = file.kafka(top, drafts);
    let cache = file.cache(top);
    let objects = file.objects(top);
    let telemetry = file.telemetry(top);
    let models = models::read(top, &mut file, mentions, environment);
    Some(Sections {
        name: name?,
        kafka: kafka?,
        cache: cache?,
        objects: objects?,
        threads: threads(top.opt_object("threads")?),
        telemetry: telemetry?,
        models: models?,
        model_cache: PathBuf::from(&**top.opt_text("model_cache")?),
        memory: memory(top.opt_object("memory")?),
        shutdown: top.opt_duration("shutdown")?,
        progress: top.opt_duration("progress")?,
    })
}

struct File<'a> {
    root: &'a Node,
    problems: &'a mut Problems,
}

impl File<'_> {
    /// Where the value at a path stands, or the nearest thing above it.
    fn at(&self, path: &[&str]) -> Place {
        let mut node = self.root;
        for key in path {
            match node.entry(key) {
                Some(entry) => node = &entry.value,
                None => return node.place,
            }
        }
        node.place
    }

    fn name(&mut self, top: &Params) -> Option<String> {
        let name = top.opt_text("name")?;
        if !word(name) {
            let help = "letters, digits, `.`, `-` and `_`, at most 64";
            self.problems
                .add(
                    self.at(&["name"]),
                    format!("`{name}` is no name for a pipeline"),
                )
                .help(help);
        }
        Some(name.to_string())
    }

    /// `Some(None)`: there is no Kafka, and none is needed.
    fn kafka(&mut self, top: &Params, drafts: &[StageDraft<'_>]) -> Option<Option<KafkaPlan>> {
        let needs = drafts
            .iter()
            .find(|draft| draft.kind.is_some_and(|kind| kind.name == "kafka"));
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
        self.properties(kafka);
        let namespace = kafka.text("namespace");
        if !word(namespace) {
            let help = "letters, digits, `.`, `-` and `_`, at most 64";
            self.problems
                .add(
                    self.at(&["kafka", "namespace"]),
                    format!("`{namespace}` cannot begin a topic's name"),
                )
                .help(help);
        }
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
        Some(Some(KafkaPlan {
            brokers: kafka.text("brokers").to_string(),
            namespace: namespace.to_string(),
            encoding: kafka.text("encoding").to_string(),
            registry: registry.map(|registry| registry.text("url").to_string()),
            registry_auth: registry.and_then(|registry| {
                let password = registry
                    .opt_secret("password")
                    .cloned()
                    .unwrap_or_else(|| Secret::new(""));
                Some((registry.opt_text("user")?.to_string(), password))
            }),
            topics: topics.text("policy").to_string(),
            partitions: number(topics.int("partitions")),
            replication: number(topics.int("replication")),
            address_file: kafka.text("address_file").to_string(),
            in_flight: kafka.bytes("in_flight"),
            properties: texts("properties"),
            secrets: secrets.collect(),
        }))
    }

    fn brokers(&mut self, kafka: &Params) {
        let (brokers, at) = (kafka.text("brokers"), self.at(&["kafka", "brokers"]));
        let embedded = **brokers == *"embedded";
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
                let help = match nearest(address, &["embedded"]) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => "write HOST:PORT, with commas between several".to_owned(),
                };
                self.problems
                    .add(at, format!("`{address}` is not the address of a broker"))
                    .help(help);
            }
        }
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
            self.problems
                .add(
                    at,
                    format!("`{}` is not the URL of a registry", redact(url)),
                )
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

    fn cache(&mut self, top: &Params) -> Option<CachePlan> {
        let cache = top.opt_object("cache")?;
        let redis = cache.text("redis");
        if !redis.is_empty()
            && !["redis://", "rediss://", "unix://", "redis+unix://"]
                .iter()
                .any(|scheme| redis.starts_with(scheme))
        {
            let at = self.at(&["cache", "redis"]);
            self.problems
                .add(at, "`redis` takes the URL of a server")
                .help("for example `redis://127.0.0.1:6379/0`");
        }
        Some(CachePlan {
            memory: cache.bytes("memory"),
            redis: (!redis.is_empty()).then(|| Secret::new(&**redis)),
            ttl: cache.duration("ttl"),
            compress_over: cache.bytes("compress_over"),
        })
    }

    fn objects(&mut self, top: &Params) -> Option<ObjectsPlan> {
        let objects = top.opt_object("objects")?;
        let store = objects.text("store");
        if store.strip_prefix("file:").is_none_or(str::is_empty) {
            let at = self.at(&["objects", "store"]);
            self.problems
                .add(at, format!("`{store}` is not an object store"))
                .help("write `file:FOLDER`");
        }
        let ttl = objects.opt_duration("ttl").filter(|ttl| !ttl.is_zero());
        Some(ObjectsPlan {
            store: store.to_string(),
            inline_max: objects.bytes("inline_max"),
            ttl,
        })
    }

    fn telemetry(&mut self, top: &Params) -> Option<TelemetryPlan> {
        let telemetry = top.opt_object("telemetry")?;
        let metrics = telemetry.text("metrics");
        let address = metrics.parse::<SocketAddr>().ok();
        if address.is_none() && !metrics.is_empty() {
            let at = self.at(&["telemetry", "metrics"]);
            self.problems
                .add(at, format!("`{metrics}` is not an address to listen on"))
                .help("for example `127.0.0.1:9100` or `0.0.0.0:9100`");
        }
        Some(TelemetryPlan {
            metrics: address,
            log: telemetry.text("log").to_string(),
        })
    }
}

fn memory(memory: &Params) -> MemoryPlan {
    MemoryPlan {
        threshold: memory.opt_bytes("threshold"),
        idle: memory.duration("idle"),
    }
}

/// 0 leaves it to the machine: torch takes the cores, what feeds it a part.
fn threads(threads: &Params) -> ThreadsPlan {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let given = |key: &str, own: usize| {
        Some(to_usize(threads.int(key)))
            .filter(|threads| *threads > 0)
            .unwrap_or(own)
    };
    ThreadsPlan {
        tokio: given("tokio", (cores / 4).clamp(1, 8)),
        torch: given("torch", cores.min(32)),
        decode: given("decode", (cores / 4).clamp(1, 4)),
        spin: threads.bool("spin"),
    }
}

fn word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}
