//! From a plan to what its stages share: models loaded, cache and objects opened, brokers found and
//! topics there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::plan::{BrokersPlan, KafkaPlan, KafkaRecords, ModelPlan, Plan};
use crate::broker::{Brokers, CreateTopics, Embedded, Policy, Producer, Settings, Topics};
use crate::cache::{Cache, CacheSettings, ObjectStore};
use crate::codec::{Codec, Encoding, Registry, RegistrySettings};
use crate::inference::{
    BatchSettings, MemorySettings, ModelSettings, Models, Reclaimed, Workers, watch_memory,
};
use crate::stage::{Deps, Endpoint, Kafka, Print};
use crate::{Error, Result};

/// Pause between two looks for brokers or a registry that are away.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Pause between two looks for objects that have expired.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// What a pipeline stands on.
pub struct Assembled {
    /// What its stages share.
    pub deps: Arc<Deps>,
    /// The broker inside this process, where the plan asks for it.
    pub embedded: Option<Arc<Embedded>>,
    workers: Workers,
    producer: Option<Arc<Producer>>,
    /// Sweeps objects and keeps memory, until this falls.
    chores: Vec<AbortOnDropHandle<()>>,
}

/// The brokers of a pipeline, found.
#[derive(Default)]
pub struct Connected {
    /// The broker inside this process, where the plan asks for it.
    pub embedded: Option<Arc<Embedded>>,
    kafka: Option<Kafka>,
}

impl Connected {
    /// Finds the brokers and the registry of `plan`, if it writes to Kafka, and sees to its topics.
    /// What is away is waited for until `stop`.
    ///
    /// # Errors
    /// Where a topic or a schema is missing and may not be made, or a setting is refused.
    pub async fn connect(plan: &Plan, stop: &CancellationToken) -> Result<Self> {
        match &plan.kafka {
            Some(kafka) if writes_to_kafka(plan) => connect_kafka(plan, kafka, stop).await,
            _ => Ok(Self::default()),
        }
    }
}

impl Assembled {
    /// Loads and opens what else `plan` needs. Where that fails, no thread is left at work on a
    /// model.
    ///
    /// # Errors
    /// What cannot be had: a model that does not load, a folder that cannot be written; overload
    /// where `stop` came before all was there.
    pub async fn build(
        plan: &Plan,
        connected: Connected,
        print: Print,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let Connected { embedded, kafka } = connected;
        let producer = kafka.as_ref().map(|kafka| Arc::clone(&kafka.producer));
        let redis = plan
            .cache
            .redis
            .as_ref()
            .map(|url| url.reveal().to_owned())
            .filter(|url| !url.is_empty());
        let compress_above = usize::try_from(plan.cache.compress_over).unwrap_or(usize::MAX);
        let cache = Cache::open(&CacheSettings {
            memory: plan.cache.memory,
            redis: redis.clone(),
            compress_above,
        })
        .await?;
        let workers = Workers::new();
        let settings: BTreeMap<_, _> = plan
            .models
            .iter()
            .map(|(name, model)| (name.clone(), model_settings(model, &plan.model_cache)))
            .collect();
        let objects = ObjectStore::open(&plan.objects.store, plan.objects.inline_max)?;
        let models = Models::load(&settings, &workers, stop).await;
        if models.is_err() {
            workers.close().await;
        }
        let models = models?;
        let chores = chores(plan, &objects, &workers);
        let deps = Deps {
            models,
            cache,
            cache_ttl: plan.cache.ttl,
            objects: Some(objects),
            objects_ttl: plan.objects.ttl,
            kafka,
            redis,
            decode_threads: plan.threads.decode,
            print,
        };
        Ok(Self {
            deps: Arc::new(deps),
            embedded,
            workers,
            producer,
            chores,
        })
    }

    /// Unloads every model that has nothing to do now, until it is asked again, and gives freed
    /// memory back to the system.
    pub(crate) async fn reclaim(&self) -> Reclaimed {
        self.workers.reclaim(Duration::ZERO, || false).await
    }

    /// Closes the producer and the workers; gives the number of messages that Kafka did not confirm
    /// in time.
    pub async fn close(&self, patience: Duration) -> usize {
        let unconfirmed = match &self.producer {
            Some(producer) => producer.close(patience).await,
            None => 0,
        };
        self.deps.cache.flush(patience).await;
        self.chores.iter().for_each(|chore| chore.abort());
        self.workers.close().await;
        unconfirmed
    }
}

/// Deletes objects that have expired, now and then.
async fn sweep(objects: ObjectStore) {
    loop {
        match objects.sweep().await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "objects have expired"),
            Err(error) => tracing::warn!(%error, "expired objects stay"),
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// How a model entry is loaded.
fn model_settings(model: &ModelPlan, cache: &Path) -> ModelSettings {
    let batch = match model.max_size {
        Some(max_size) => BatchSettings {
            max_size,
            measured: false,
            max_wait: model.max_wait,
            queue: model.queue.max(max_size),
        },
        None => BatchSettings::measured(model.max_wait, model.queue),
    };
    ModelSettings {
        path: model.path.clone(),
        devices: model.devices.clone(),
        precision: model.precision,
        tf32: model.tf32,
        options: model.options,
        memory_limit: model.memory_limit,
        batch,
        cache: cache.to_path_buf(),
    }
}

/// What is done beside the pipeline, as long as it is assembled.
fn chores(plan: &Plan, objects: &ObjectStore, workers: &Workers) -> Vec<AbortOnDropHandle<()>> {
    let spawn = |work: BoxFuture<'static, ()>| AbortOnDropHandle::new(tokio::spawn(work));
    let mut chores = Vec::new();
    if plan.objects.ttl.is_some() {
        chores.push(spawn(sweep(objects.clone()).boxed()));
    }
    if let Some(threshold) = plan.memory.threshold {
        let settings = MemorySettings {
            threshold,
            idle: plan.memory.idle,
        };
        chores.push(spawn(watch_memory(workers.clone(), settings).boxed()));
    }
    chores
}

fn writes_to_kafka(plan: &Plan) -> bool {
    plan.stages
        .iter()
        .any(|stage| stage.kind.endpoint == Endpoint::Kafka)
}

/// How the brokers of a plan are spoken to.
pub(crate) fn broker_settings(plan: &KafkaPlan, brokers: Brokers) -> Settings {
    let count = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
    Settings {
        properties: plan.properties.clone(),
        secrets: plan
            .secrets
            .iter()
            .map(|(key, secret)| (key.clone(), secret.reveal().to_owned()))
            .collect(),
        create_topics: CreateTopics {
            policy: plan.topics,
            partitions: count(plan.partitions),
            replication: count(plan.replication),
        },
        in_flight: usize::try_from(plan.in_flight).unwrap_or(usize::MAX),
        ..Settings::new(brokers, plan.namespace.as_str())
    }
}

/// The registry of a plan.
pub(crate) fn registry(plan: &KafkaPlan) -> Result<Registry> {
    let url = plan
        .registry
        .clone()
        .ok_or_else(|| Error::config("`encoding: avro_registry` needs `registry: { url: ... }`"))?;
    let login = plan
        .registry_auth
        .as_ref()
        .map(|(user, password)| (user.clone(), password.reveal().to_owned()));
    Registry::build(&RegistrySettings {
        login,
        ..RegistrySettings::at(url)
    })
}

async fn connect_kafka(
    plan: &Plan,
    kafka: &KafkaPlan,
    stop: &CancellationToken,
) -> Result<Connected> {
    let (brokers, embedded) = match &kafka.brokers {
        BrokersPlan::Addresses(addresses) => (Brokers::Addresses(addresses.clone()), None),
        BrokersPlan::Embedded => {
            let embedded = tokio::task::spawn_blocking(Embedded::start).await;
            let embedded =
                Arc::new(embedded.map_err(|error| {
                    Error::bug(format!("the embedded broker ended: {error}"))
                })??);
            (Brokers::Embedded(Arc::clone(&embedded)), Some(embedded))
        }
    };
    let settings = broker_settings(kafka, brokers);
    let KafkaRecords { records, letters } = plan.kafka_records();
    retry_until_stopped("kafka", stop, || async {
        Topics::new(&settings).ensure(&records, &letters).await
    })
    .await?;
    let codec = match kafka.encoding {
        Encoding::AvroRegistry => {
            let registry = registry(kafka)?;
            // Where topics may not be created, schemas are the operator's too.
            let register = kafka.topics == Policy::Create;
            Codec::registry(
                retry_until_stopped("the schema registry", stop, || async {
                    registry.ids(&kafka.namespace, register).await
                })
                .await?,
            )
        }
        Encoding::Avro => Codec::avro(),
        Encoding::Json => Codec::json(),
    };
    let producer = Arc::new(Producer::open(&settings)?);
    Ok(Connected {
        embedded,
        kafka: Some(Kafka {
            producer,
            codec,
            namespace: kafka.namespace.clone(),
        }),
    })
}

/// Tries until it works, fails for good, or `stop` is cancelled.
async fn retry_until_stopped<T, F: Future<Output = Result<T>>>(
    what: &str,
    stop: &CancellationToken,
    attempt: impl Fn() -> F,
) -> Result<T> {
    let mut warned = false;
    loop {
        match attempt().await {
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, "{what} is away, waiting for it");
                }
                if stop
                    .run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL))
                    .await
                    .is_none()
                {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}
