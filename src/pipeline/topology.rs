//! The topology: the plan's stages, built, with the edges that a session makes queues for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::panic::panicked;
use super::plan::{InputPlan, Plan, StagePlan};
use crate::packet::{Origin, PayloadKind};
use crate::stage::{Build, Context, Deps, OpenTransform, Role, Sink, Source, Transform};
use crate::telemetry::{StageMetrics, Throttle};
use crate::{Error, Result};

/// Every stage of a pipeline, built, in the order of the plan.
pub(crate) struct Topology {
    pub plan: Arc<Plan>,
    pub stages: Vec<Arc<Stage>>,
}

/// One built stage, shared by all sessions.
pub(crate) struct Stage {
    /// Its place in the plan.
    pub place: usize,
    pub plan: Arc<Plan>,
    pub origin: Arc<Origin>,
    pub built: Built,
    pub counts: StageCounts,
    pub metrics: StageMetrics,
    /// Which of its failures are logged.
    pub failures: Throttle,
}

/// What a kind's `build` gave.
pub(crate) enum Built {
    Source(Arc<dyn Source>),
    Shared(Arc<dyn Transform>),
    PerStream(OpenTransform),
    Sink(Arc<dyn Sink>),
}

/// What a stage has done, over all streams.
#[derive(Debug, Default)]
pub(crate) struct StageCounts {
    pub taken: AtomicU64,
    pub emitted: AtomicU64,
    pub retried: AtomicU64,
    pub failed: AtomicU64,
}

impl StageCounts {
    pub fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl Topology {
    /// Builds every stage of `plan`.
    pub fn build(plan: Arc<Plan>, deps: &Arc<Deps>) -> Result<Self> {
        let stages = plan
            .stages
            .iter()
            .enumerate()
            .map(|(place, stage)| Stage::build(place, stage, &plan, deps).map(Arc::new));
        let stages = stages.collect::<Result<Vec<_>>>()?;
        Ok(Self { plan, stages })
    }

    /// The places of the stages that a stream of the source at `place` passes, in order, the source
    /// left out.
    pub fn behind(&self, place: usize) -> Vec<usize> {
        let mut reached = vec![false; self.stages.len()];
        reached[place] = true;
        // A stage comes after those it reads, so that one pass is enough.
        for (at, stage) in self.plan.stages.iter().enumerate() {
            reached[at] |= stage.inputs.iter().any(|input| reached[input.from]);
        }
        (0..self.stages.len())
            .filter(|&at| at != place && reached[at])
            .collect()
    }

    /// Whether packets of each stage leave in the order of their times, as long as every stage
    /// keeps the order of its own inputs. Inputs merged as they come do not: their readers must go
    /// by watermarks alone.
    pub fn ordered(&self, behind: &[usize], source: usize) -> Vec<bool> {
        let mut ordered = vec![true; self.stages.len()];
        for &at in behind {
            let plan = &self.plan.stages[at];
            let reached = |input: &InputPlan| {
                Some(input.from).filter(|from| *from == source || behind.contains(from))
            };
            ordered[at] = match &plan.join {
                Some(join) => plan
                    .inputs
                    .get(join.per)
                    .and_then(reached)
                    .is_none_or(|from| ordered[from]),
                None => {
                    let mut from = plan.inputs.iter().filter_map(reached);
                    let first = from.next();
                    from.next().is_none() && first.is_none_or(|from| ordered[from])
                }
            };
        }
        ordered
    }
}

impl Stage {
    fn build(place: usize, plan: &StagePlan, whole: &Arc<Plan>, deps: &Arc<Deps>) -> Result<Self> {
        let origin = Arc::new(Origin {
            stage: Arc::clone(&plan.id),
            kind: plan.kind.name,
            pipeline: Arc::clone(&whole.name),
            config_hash: Arc::clone(&whole.config_hash),
            parameters: plan.parameters,
        });
        let context = Context {
            origin: &origin,
            params: &plan.params,
            deps,
        };
        let build = || match plan.kind.build {
            Build::Source(build) => build(&context).map(Built::Source),
            Build::Stateless(build) => build(&context).map(Built::Shared),
            Build::Windowed(build) | Build::Sequential(build) => {
                build(&context).map(Built::PerStream)
            }
            Build::Sink(build) => build(&context).map(Built::Sink),
        };
        let built = std::panic::catch_unwind(AssertUnwindSafe(build))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        let built =
            built.map_err(|error: Error| error.context(format_args!("stage `{}`", plan.id)))?;
        let metrics = StageMetrics::new(&whole.name, &plan.id);
        Ok(Self {
            place,
            plan: Arc::clone(whole),
            origin,
            built,
            counts: StageCounts::default(),
            metrics,
            failures: Throttle::default(),
        })
    }

    pub fn settings(&self) -> &StagePlan {
        &self.plan.stages[self.place]
    }

    pub fn id(&self) -> &str {
        &self.settings().id
    }

    pub fn role(&self) -> Role {
        self.settings().kind.role()
    }

    /// Says how many failures were not logged, when a stream's end leaves no more of them to come.
    pub fn log_suppressed(&self) {
        let unlogged = self.failures.take_left_out();
        if unlogged > 0 {
            tracing::warn!(
                stage = self.id(),
                unlogged,
                "further failures were not logged one by one"
            );
        }
    }

    pub fn takes(&self, kind: PayloadKind) -> bool {
        self.settings().kind.accepts.contains(&kind)
    }
}
