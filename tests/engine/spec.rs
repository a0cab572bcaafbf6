//! What a test pipeline looks like, and the plan made of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opusflow::pipeline::Plan;
use opusflow::pipeline::plan::{
    CachePlan, InputPlan, MemoryPlan, ObjectsPlan, StagePlan, TelemetryPlan, ThreadsPlan,
};
use opusflow::stage::{JoinSettings, QueueSettings, Retry, WhenFull};

use super::acts;

/// A test pipeline: one source called `in`, then its stages.
#[derive(Debug, Clone)]
pub struct Spec {
    pub load: Load,
    pub stages: Vec<Stage>,
    pub shutdown: Duration,
    pub seed: u64,
}

/// What the source sends.
#[derive(Debug, Clone)]
pub struct Load {
    pub streams: usize,
    /// Frames by view.
    pub views: Vec<(&'static str, u32)>,
    /// Between two frames of a view.
    pub every: Duration,
    /// Frames before which the stream breaks off.
    pub gaps: Vec<u32>,
    /// Pixels of a frame, at most.
    pub bytes: usize,
    /// Of a hundred frames, so many arrived a minute ago.
    pub old: u8,
    /// Whether the source ignores the stop.
    pub deaf: bool,
    /// Whether it goes with its feed kept open elsewhere.
    pub keeps: bool,
}

/// One stage.
#[derive(Debug, Clone)]
pub struct Stage {
    pub id: String,
    pub act: Act,
    pub inputs: Vec<Edge>,
    pub join: Option<JoinSettings>,
    pub concurrency: usize,
    pub timeout: Option<Duration>,
    pub retry: Retry,
    pub dead_letter: Option<String>,
    pub required: bool,
    pub behave: Behave,
}

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Up to so many drafts for each input.
    Each(u8),
    /// A segment for so many inputs, one at a time.
    Window(usize),
    /// A segment for so many inputs, several at work.
    Gather(usize),
    /// Delivers.
    Sink,
    /// Delivers, and drops a receipt without an outcome.
    Leak,
    /// Delivers, and reports an outcome too few.
    Short,
    /// Delivers, and never lets a receipt go.
    Hoard,
}

/// How a stage fares, in percent of its calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behave {
    /// Longest call, in milliseconds; 0 answers at once.
    pub delay: u64,
    pub transient: u8,
    pub permanent: u8,
    pub panic: u8,
    /// Never answers; only with a timeout.
    pub hang: u8,
}

/// One input.
#[derive(Debug, Clone)]
pub struct Edge {
    pub from: String,
    pub view: Option<&'static str>,
    pub queue: QueueSettings,
}

/// A queue of `frames` that blocks.
pub const fn block(frames: usize) -> QueueSettings {
    QueueSettings {
        frames,
        bytes: 64 << 20,
        when_full: WhenFull::Block,
        max_age: None,
    }
}

impl Edge {
    pub fn view(view: &'static str, queue: QueueSettings) -> Self {
        Self {
            from: "in".to_owned(),
            view: Some(view),
            queue,
        }
    }

    pub fn stage(from: &str, queue: QueueSettings) -> Self {
        Self {
            from: from.to_owned(),
            view: None,
            queue,
        }
    }
}

impl Load {
    /// One stream with view `a`.
    pub fn frames(frames: u32) -> Self {
        let (every, gaps) = (Duration::from_millis(1), Vec::new());
        Self {
            streams: 1,
            views: vec![("a", frames)],
            every,
            gaps,
            bytes: 100,
            old: 0,
            deaf: false,
            keeps: false,
        }
    }
}

impl Stage {
    pub fn new(id: &str, act: Act, inputs: Vec<Edge>) -> Self {
        Self {
            id: id.to_owned(),
            act,
            inputs,
            join: None,
            concurrency: 1,
            timeout: None,
            retry: Retry {
                attempts: 1,
                backoff: Duration::from_millis(10),
            },
            dead_letter: None,
            required: true,
            behave: Behave::default(),
        }
    }

    /// Its plan; `place` tells where the stages of the pipeline stand.
    fn plan(&self, place: &dyn Fn(&str) -> usize) -> StagePlan {
        let input = |edge: &Edge| InputPlan {
            from: place(&edge.from),
            view: edge.view.map(Arc::from),
            queue: edge.queue,
        };
        StagePlan {
            id: self.id.as_str().into(),
            kind: match self.act {
                Act::Each(_) => &acts::EACH,
                Act::Window(_) => &acts::WINDOW,
                Act::Gather(_) => &acts::GATHER,
                Act::Sink | Act::Short | Act::Leak | Act::Hoard => &acts::SINK,
            },
            inputs: self.inputs.iter().map(input).collect(),
            join: self.join.clone(),
            concurrency: self.concurrency,
            timeout: self.timeout,
            retry: self.retry,
            dead_letter: self.dead_letter.as_deref().map(place),
            required: self.required,
            params: Default::default(),
            parameters: [0; 16],
        }
    }
}

impl Spec {
    pub fn new(load: Load, stages: Vec<Stage>) -> Self {
        Self {
            load,
            stages,
            shutdown: Duration::from_secs(600),
            seed: 1,
        }
    }

    /// The plan of a pipeline called `name`.
    pub fn plan(&self, name: &str) -> Arc<Plan> {
        let place = |id: &str| {
            let stages = std::iter::once("in").chain(self.stages.iter().map(|stage| &*stage.id));
            let mut found = stages.enumerate().filter(|(_, other)| *other == id);
            found.next().expect("every name is that of a stage").0
        };
        let source = StagePlan {
            kind: &acts::SOURCE,
            ..Stage::new("in", Act::Sink, Vec::new()).plan(&place)
        };
        Arc::new(Plan {
            name: name.into(),
            config_hash: "0".into(),
            kafka: None,
            cache: CachePlan {
                memory: 0,
                redis: None,
                ttl: Duration::ZERO,
                compress_over: 0,
            },
            objects: ObjectsPlan {
                store: "file:.".to_owned(),
                inline_max: 0,
                ttl: None,
            },
            threads: ThreadsPlan {
                tokio: 1,
                torch: 1,
                decode: 1,
                spin: false,
            },
            telemetry: TelemetryPlan {
                metrics: None,
                log: "warn".to_owned(),
            },
            shutdown: self.shutdown,
            progress: Duration::from_millis(100),
            models: BTreeMap::new(),
            absent: BTreeMap::new(),
            model_cache: ".".into(),
            memory: MemoryPlan {
                threshold: None,
                idle: Duration::from_secs(60),
            },
            stages: std::iter::once(source)
                .chain(self.stages.iter().map(|stage| stage.plan(&place)))
                .collect(),
        })
    }

    /// The stages that read what `from` emits, with the input they read it by.
    pub fn readers<'a>(
        &'a self,
        from: &'a str,
        view: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Stage, usize)> {
        self.stages.iter().flat_map(move |stage| {
            let reads = move |edge: &Edge| edge.from == from && edge.view == view;
            stage
                .inputs
                .iter()
                .enumerate()
                .filter(move |(_, edge)| reads(edge))
                .map(move |(at, _)| (stage, at))
        })
    }
}
