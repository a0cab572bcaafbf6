//! The check: from a file, its variables and flags to a plan, or to every problem at once. Nothing
//! is opened but model folders and secrets.

mod capacity;
mod join;
mod links;
mod overrides;
mod sections;
mod sinks;
mod stages;

use std::sync::Arc;

use self::links::Links;
use self::stages::StageDraft;
use super::effective;
use super::grammar::TOP;
use super::plan::{InputPlan, Plan, StagePlan};
use crate::config::{Environment, Params, Problems, Reader, SourceText, Value, expand, parse};
use crate::stage::{QueueSettings, Retry, Role, StageKind, WhenFull};

pub use overrides::Overrides;
pub(super) use stages::applies;

/// A checked pipeline with what its file says, for `graph --effective`.
#[derive(Debug)]
pub struct Checked {
    /// The plan.
    pub plan: Plan,
    /// The keys of the file but `stages`.
    pub top: Params,
    /// The stages in the order of the file.
    pub stages: Vec<EffectiveStage>,
}

/// A stage as its file says it, defaults filled in.
#[derive(Debug)]
pub struct EffectiveStage {
    /// Its kind.
    pub kind: &'static StageKind,
    /// Its own keys.
    pub keys: Params,
    /// Its inputs.
    pub inputs: Vec<Params>,
    /// Its parameters.
    pub with: Params,
}

/// Checks a pipeline file against the stage kinds there are.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(
    source: &SourceText,
    kinds: &[&'static StageKind],
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Plan, Problems> {
    checked(source, kinds, environment, overrides).map(|checked| checked.plan)
}

/// As [`check`], and keeps what the file says.
///
/// # Errors
/// Everything that is wrong with it.
pub fn checked(
    source: &SourceText,
    kinds: &[&'static StageKind],
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Checked, Problems> {
    let mut problems = Problems::new(source);
    let Some(mut root) = parse(&mut problems, 0, 0) else {
        if problems.is_empty() {
            problems
                .add(None, "the file says nothing")
                .help("begin with `version: 1`, `name:` and `stages:`");
        }
        return Err(problems);
    };
    overrides.apply(&mut root, &mut problems);
    expand(&mut root, environment, &mut problems);
    let mut reader = Reader::new(&mut problems);
    let mut top = reader.object(&root, root.place, TOP);
    sections::fill_profiles(&mut top);
    let mut drafts = stages::read(&root, kinds, &mut reader);
    let (models, mentioned) = (
        std::mem::take(&mut reader.models),
        std::mem::take(&mut reader.stages),
    );
    let links = Links::of(&drafts, &mut problems);
    links.mentions(&mentioned, &drafts, &mut problems);
    stages::roles(&drafts, &mut problems);
    stages::fill(&mut drafts, &links);
    let networks = sections::architectures(&top, environment);
    let joins: Vec<_> = (0..drafts.len())
        .map(|at| join::settings(at, &mut drafts, &links, &networks, &mut problems))
        .collect();
    for at in 0..drafts.len() {
        capacity::check(at, &joins, &mut drafts, &links, &mut problems);
    }
    let letters = sinks::check(&mut drafts, &links, &mut problems);
    let sections = sections::read(&top, &root, &drafts, &models, environment, &mut problems);
    let (Some(order), Some(sections), true) = (links.order(), sections, problems.is_empty()) else {
        return Err(problems);
    };
    let plans: Vec<StagePlan> = drafts
        .iter()
        .zip(joins)
        .zip(letters)
        .map(|((draft, join), letter)| draft.plan(join, letter))
        .collect();
    let mut plans: Vec<Option<StagePlan>> = plans.into_iter().map(Some).collect();
    let stages = order
        .into_iter()
        .filter_map(|at| plans[at].take())
        .collect();
    let written = drafts.into_iter().filter_map(StageDraft::written).collect();
    let mut checked = Checked {
        plan: sections.plan(stages),
        top,
        stages: written,
    };
    checked.plan.config_hash = effective::digest(&checked).into();
    Ok(checked)
}

impl StageDraft<'_> {
    /// The stage's plan; asked only when nothing is wrong.
    fn plan(
        &self,
        join: Option<crate::stage::JoinSettings>,
        dead_letter: Option<Arc<str>>,
    ) -> StagePlan {
        let kind = self.kind.expect("an unknown kind is a problem");
        let timeout = self.keys.duration("timeout");
        let retry = self.keys.object("retry");
        StagePlan {
            id: Arc::clone(&self.id),
            kind,
            inputs: self.inputs.iter().map(stages::InputDraft::plan).collect(),
            join,
            concurrency: to_usize(self.keys.opt_int("concurrency").unwrap_or(1)),
            timeout: (!timeout.is_zero()).then_some(timeout),
            retry: Retry {
                attempts: u32::try_from(retry.int("attempts")).unwrap_or(u32::MAX),
                backoff: retry.duration("backoff"),
            },
            dead_letter,
            required: kind.role() == Role::Sink && self.keys.opt_bool("required").unwrap_or(true),
            params: self.with.clone(),
            parameters: effective::parameters(kind, &self.with),
        }
    }
}

impl stages::InputDraft {
    fn plan(&self) -> InputPlan {
        let queue = self.keys.object("queue");
        let when_full = match &**queue.text("when_full") {
            "block" => WhenFull::Block,
            "drop_newest" => WhenFull::DropNewest,
            _ => WhenFull::DropOldest,
        };
        let settings = QueueSettings {
            frames: to_usize(queue.int("frames")),
            bytes: usize::try_from(queue.bytes("bytes")).unwrap_or(usize::MAX),
            when_full,
            max_age: queue.opt_duration("max_age").filter(|age| !age.is_zero()),
        };
        InputPlan {
            from: self.from.as_str().into(),
            view: self.view.as_deref().map(Into::into),
            queue: settings,
        }
    }
}

fn to_usize(number: i64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

/// A text of a mapping with free keys.
fn text_of(value: &Value) -> &str {
    value.as_text().map_or("", |text| text)
}
