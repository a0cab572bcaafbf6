//! The plan: what a checked pipeline file says, with every default filled in and every name
//! resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::Policy;
use crate::codec::Encoding;
use crate::config::{Params, Secret};
use crate::inference::NetworkOptions;
use crate::models::hub::HubId;
use crate::packet::PayloadKind;
use crate::stage::{Endpoint, JoinSettings, QueueSettings, Retry, Role, StageKind};
use crate::tensor::{DeviceChoice, PrecisionChoice};

/// A checked pipeline.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub name: Arc<str>,
    /// Digest of the whole effective configuration, hexadecimal.
    pub config_hash: Arc<str>,
    /// Where records go, if any stage needs Kafka.
    pub kafka: Option<KafkaPlan>,
    /// The cache.
    pub cache: CachePlan,
    /// The object store.
    pub objects: ObjectsPlan,
    /// Threads.
    pub threads: ThreadsPlan,
    /// How long the shutdown may take before what is left is dropped and counted.
    pub shutdown: Duration,
    /// How often `progress` events are emitted.
    pub progress: Duration,
    /// Metrics and logs.
    pub telemetry: TelemetryPlan,
    /// Models by name.
    pub models: BTreeMap<String, ModelPlan>,
    /// Those of `models:` that are to be fetched from the hub first; they are not among the models
    /// until they are there.
    pub absent: BTreeMap<String, AbsentModel>,
    /// Where measured batch sizes are kept.
    pub model_cache: PathBuf,
    /// What happens when the process holds much memory.
    pub memory: MemoryPlan,
    /// Stages, sources first, each after those it reads from. They name one another by their
    /// places in this list.
    pub stages: Vec<StagePlan>,
}

/// What can reach the Kafka sinks of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaRecords {
    /// The kinds of record.
    pub records: BTreeSet<PayloadKind>,
    /// The kinds that dead letters are about.
    pub letters: BTreeSet<PayloadKind>,
}

impl Plan {
    /// What can reach the Kafka sinks: events, what their inputs give, and the letters of the
    /// stages whose dead letters go there.
    pub fn kafka_records(&self) -> KafkaRecords {
        let mut found = KafkaRecords::default();
        let gives = |stage: &StagePlan| -> BTreeSet<PayloadKind> {
            let given = stage.inputs.iter().map(|input| {
                let from = &self.stages[input.from];
                from.kind.gives(&from.params, input.view.as_deref())
            });
            given.flatten().copied().collect()
        };
        for (at, sink) in self.stages.iter().enumerate() {
            if sink.kind.endpoint != Endpoint::Kafka {
                continue;
            }
            found.records.insert(PayloadKind::Event);
            found.records.extend(gives(sink));
            for stage in self
                .stages
                .iter()
                .filter(|stage| stage.dead_letter == Some(at))
            {
                found.letters.extend(gives(stage));
                // Sinks are sent events too, and may fail on them.
                found
                    .letters
                    .extend((stage.kind.role() == Role::Sink).then_some(PayloadKind::Event));
            }
        }
        found
    }

    /// What an input reads, as the file says it: `film.frames`, or `shots`.
    pub(crate) fn input_name(&self, input: &InputPlan) -> String {
        let from = &self.stages[input.from].id;
        match &input.view {
            Some(view) => format!("{from}.{view}"),
            None => from.to_string(),
        }
    }
}

/// Where the brokers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokersPlan {
    /// In this process.
    Embedded,
    /// `host:port`, separated by commas.
    Addresses(String),
}

/// The key `kafka:`.
#[derive(Debug, Clone)]
pub struct KafkaPlan {
    /// Where the brokers are.
    pub brokers: BrokersPlan,
    /// The first part of every topic's name.
    pub namespace: String,
    /// How records become bytes.
    pub encoding: Encoding,
    /// The registry's URL, with `avro_registry`.
    pub registry: Option<String>,
    /// The registry's user and password.
    pub registry_auth: Option<(String, Secret)>,
    /// What to do about topics at start.
    pub topics: Policy,
    /// Partitions of created topics.
    pub partitions: i32,
    /// Replication factor of created topics.
    pub replication: i32,
    /// The file that the embedded broker's address is written to.
    pub address_file: String,
    /// Bytes that may be with the producer unconfirmed.
    pub in_flight: u64,
    /// Handed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
    /// Like `properties`, never printed.
    pub secrets: BTreeMap<String, Secret>,
}

/// The key `cache:`.
#[derive(Debug, Clone)]
pub struct CachePlan {
    /// Bytes of the memory tier.
    pub memory: u64,
    /// The Redis tier's URL.
    pub redis: Option<Secret>,
    /// How long an entry lives.
    pub ttl: Duration,
    /// Values longer than this are compressed.
    pub compress_over: u64,
}

/// The key `objects:`.
#[derive(Debug, Clone)]
pub struct ObjectsPlan {
    /// `file:PATH`.
    pub store: String,
    /// Objects up to this many bytes also travel in the record.
    pub inline_max: u64,
    /// How long the store keeps an object; none for ever.
    pub ttl: Option<Duration>,
}

/// The key `threads:`.
#[derive(Debug, Clone, Copy)]
pub struct ThreadsPlan {
    /// Of the tokio runtime.
    pub tokio: usize,
    /// Inside one torch operation.
    pub torch: usize,
    /// Of one stream's decoder.
    pub decode: usize,
    /// Whether torch's threads keep their cores busy while they wait for one another.
    pub spin: bool,
}

/// The key `telemetry:`.
#[derive(Debug, Clone)]
pub struct TelemetryPlan {
    /// Where the Prometheus endpoint listens; none for no endpoint.
    pub metrics: Option<SocketAddr>,
    /// The least urgent lines that are logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log: String,
}

/// The key `memory:`.
#[derive(Debug, Clone, Copy)]
pub struct MemoryPlan {
    /// Resident bytes of the process above which idle models are unloaded; none for never.
    pub threshold: Option<u64>,
    /// How long a model must have been idle for that.
    pub idle: Duration,
}

/// One entry of `models:`.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// The folder, resolved.
    pub path: PathBuf,
    /// `architectures[0]` of its config.json.
    pub architecture: String,
    /// The number format.
    pub precision: PrecisionChoice,
    /// Whether f32 may be rounded to TF32 on GPUs.
    pub tf32: bool,
    /// How its network uses memory.
    pub options: NetworkOptions,
    /// The devices, one worker on each.
    pub devices: Vec<DeviceChoice>,
    /// Bytes that a worker's weights and running batch may hold.
    pub memory_limit: Option<u64>,
    /// Most items in a batch; none where that is measured.
    pub max_size: Option<usize>,
    /// How long a batch that is not full waits for more.
    pub max_wait: Duration,
    /// Places in the worker's queue.
    pub queue: usize,
}

/// One entry of `models:` with `pull: missing` that is not there.
#[derive(Debug, Clone)]
pub struct AbsentModel {
    /// What the hub calls it.
    pub id: HubId,
    /// The folder that could be filled instead.
    pub folder: PathBuf,
}

/// One entry of `stages:`.
#[derive(Debug)]
pub struct StagePlan {
    /// Its id.
    pub id: Arc<str>,
    /// Its kind.
    pub kind: &'static StageKind,
    /// Where it reads from, in the order of the file.
    pub inputs: Vec<InputPlan>,
    /// How its inputs are joined; merged as they come without.
    pub join: Option<JoinSettings>,
    /// Packets of one stream that it works on at a time.
    pub concurrency: usize,
    /// How long one packet may take.
    pub timeout: Option<Duration>,
    /// How often a packet is tried again after an error that may pass.
    pub retry: Retry,
    /// The place of the sink that takes what failed; without one it is dropped and counted.
    pub dead_letter: Option<usize>,
    /// For sinks: whether a frame counts as delivered only when this sink has it.
    pub required: bool,
    /// The checked keys of `with:`.
    pub params: Params,
    /// Digest of kind and `with:`.
    pub parameters: [u8; 16],
}

/// One entry of `inputs:`.
#[derive(Debug, Clone)]
pub struct InputPlan {
    /// The place of the stage read from; it lies before the one that reads.
    pub from: usize,
    /// The view, where that stage is a source with views.
    pub view: Option<Arc<str>>,
    /// The queue between.
    pub queue: QueueSettings,
}
