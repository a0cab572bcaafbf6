//! What the check gives: the plan, and the file's own words with every default filled in.

use super::plan::Plan;
use crate::config::Params;
use crate::stage::StageKind;

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
