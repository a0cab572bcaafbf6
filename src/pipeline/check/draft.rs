//! A stage and its inputs while they are checked.

use std::sync::Arc;

use crate::config::{Node, Params, Place};
use crate::pipeline::checked::EffectiveStage;
use crate::stage::{Role, StageKind};

/// A stage while it is checked.
pub(super) struct StageDraft<'a> {
    pub node: &'a Node,
    pub id: Arc<str>,
    /// Where its id stands.
    pub at: Place,
    /// None when its kind is unknown, which was said.
    pub kind: Option<&'static StageKind>,
    pub keys: Params,
    pub inputs: Vec<InputDraft>,
    pub with: Params,
    /// Whether `with` holds all that the kind's shape promises.
    pub sound: bool,
}

/// One of its inputs.
pub(super) struct InputDraft {
    pub from: String,
    pub view: Option<String>,
    pub at: Place,
    pub keys: Params,
    /// Whether its queue was read without a problem.
    pub sound: bool,
}

impl StageDraft<'_> {
    pub fn role(&self) -> Option<Role> {
        self.kind.map(StageKind::role)
    }

    pub fn written(self) -> Option<EffectiveStage> {
        let inputs = self.inputs.into_iter().map(|input| input.keys).collect();
        Some(EffectiveStage {
            kind: self.kind?,
            keys: self.keys,
            inputs,
            with: self.with,
        })
    }

    /// Where a key of the stage stands, or its id.
    pub fn place_of(&self, key: &str) -> Place {
        self.node.entry(key).map_or(self.at, |entry| entry.at)
    }
}
