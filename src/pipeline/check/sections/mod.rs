//! Everything but the stages: what the shapes cannot say about `name`, `kafka`, `cache`, `objects`,
//! `threads`, `telemetry` and `models`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::reader::{SectionReader, is_name};
use super::draft::StageDraft;
use super::values::to_usize;
use crate::config::{Environment, NameRef, Node, Params, Problems, Secret};
use crate::pipeline::plan::{
    CachePlan, KafkaPlan, MemoryPlan, ObjectsPlan, Plan, StagePlan, TelemetryPlan, ThreadsPlan,
};

mod kafka;
mod models;
mod profiles;
mod reader;

pub(super) use profiles::fill as fill_profiles;

pub(super) use models::{Architectures, architectures};

/// The checked sections.
pub(super) struct Sections {
    name: String,
    kafka: Option<KafkaPlan>,
    cache: CachePlan,
    objects: ObjectsPlan,
    threads: ThreadsPlan,
    telemetry: TelemetryPlan,
    models: models::CheckedModels,
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

/// What the sections are checked against.
pub(super) struct Surroundings<'a> {
    /// The whole file.
    pub root: &'a Node,
    /// Its stages.
    pub drafts: &'a [StageDraft<'a>],
    /// Where the stages name models.
    pub mentions: &'a [NameRef],
    pub environment: &'a Environment,
}

/// Checks the sections; None when one of them is wrong, which was said.
pub(super) fn read(
    top: &Params,
    surroundings: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Sections> {
    let Surroundings {
        root,
        drafts,
        mentions,
        environment,
    } = *surroundings;
    let mut file = SectionReader { root, problems };
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

impl SectionReader<'_> {
    fn name(&mut self, top: &Params) -> Option<String> {
        let name = top.opt_text("name")?;
        if !is_name(name) {
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
