//! The check: from a file, its variables and flags to a plan, or to every problem at once. Nothing
//! is opened but model folders and secrets.

mod capacity;
mod defaults;
mod draft;
mod join;
mod links;
mod overrides;
mod plans;
mod roles;
mod sections;
mod sinks;
mod stages;
mod values;

use self::draft::StageDraft;
use self::links::Links;
use self::sections::Surroundings;
use super::effective;
use super::grammar::TOP;
use super::plan::Plan;
use crate::config::{Environment, Node, Problems, Reader, SourceText, expand, parse};
use crate::stage::StageKind;

pub use super::checked::{Checked, EffectiveStage};
pub use overrides::Overrides;

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
    let Some(root) = expanded(environment, overrides, &mut problems) else {
        return Err(problems);
    };
    let mut reader = Reader::new(&mut problems);
    let mut top = reader.object(&root, root.place, TOP);
    sections::fill_profiles(&mut top);
    let mut drafts = stages::read(&root, kinds, &mut reader);
    let (models, mentioned) = (
        std::mem::take(&mut reader.models),
        std::mem::take(&mut reader.stages),
    );
    let links = Links::resolve(&drafts, &mut problems);
    links.mentions(&mentioned, &drafts, &mut problems);
    roles::check(&drafts, &mut problems);
    defaults::fill(&mut drafts, &links);
    let networks = sections::architectures(&top, environment);
    let mut joins: Vec<_> = (0..drafts.len())
        .map(|at| join::settings(at, &mut drafts, &links, &networks, &mut problems))
        .collect();
    for at in 0..drafts.len() {
        capacity::check(at, &joins, &mut drafts, &links, &mut problems);
    }
    let letters = sinks::check(&mut drafts, &links, &mut problems);
    let surroundings = Surroundings {
        root: &root,
        drafts: &drafts,
        mentions: &models,
        environment,
    };
    let sections = sections::read(&top, &surroundings, &mut problems);
    let (Some(order), Some(sections), true) = (links.order(), sections, problems.is_empty()) else {
        return Err(problems);
    };
    // Names end here: from now on stages know one another by their places in this order.
    let mut places = vec![0; drafts.len()];
    for (place, &at) in order.iter().enumerate() {
        places[at] = place;
    }
    let plan = |at: usize| {
        let from = links.inputs_of(at).map(|from| places[from]);
        let dead_letter = letters[at].map(|sink| places[sink]);
        drafts[at].plan(from, joins[at].take(), dead_letter)
    };
    let stages = order.into_iter().map(plan).collect();
    let written = drafts.into_iter().filter_map(StageDraft::written).collect();
    let mut checked = Checked {
        plan: sections.plan(stages),
        top,
        stages: written,
    };
    checked.plan.config_hash = effective::digest(&checked).into();
    Ok(checked)
}

/// The file as a tree, with flags and variables in it; none where there is nothing to check.
fn expanded(
    environment: &Environment,
    overrides: &Overrides,
    problems: &mut Problems,
) -> Option<Node> {
    let Some(mut root) = parse(problems, 0, 0) else {
        if problems.is_empty() {
            problems
                .add(None, "the file says nothing")
                .help("begin with `version: 1`, `name:` and `stages:`");
        }
        return None;
    };
    overrides.apply(&mut root, problems);
    expand(&mut root, environment, problems);
    Some(root)
}
