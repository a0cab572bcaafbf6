//! From drafts in which nothing is wrong to the plans of their stages.

use std::sync::Arc;

use super::draft::{InputDraft, StageDraft};
use super::values::to_usize;
use crate::pipeline::effective;
use crate::pipeline::plan::{InputPlan, StagePlan};
use crate::stage::{JoinSettings, QueueSettings, Retry, Role, WhenFull};

impl StageDraft<'_> {
    /// The stage's plan, with the places of the stages it reads from and of the sink of its dead
    /// letters; asked only when nothing is wrong.
    pub(super) fn plan(
        &self,
        from: impl Iterator<Item = usize>,
        join: Option<JoinSettings>,
        dead_letter: Option<usize>,
    ) -> StagePlan {
        let kind = self.kind.expect("an unknown kind is a problem");
        let timeout = self.keys.duration("timeout");
        let retry = self.keys.object("retry");
        StagePlan {
            id: Arc::clone(&self.id),
            kind,
            inputs: self
                .inputs
                .iter()
                .zip(from)
                .map(|(input, from)| input.plan(from))
                .collect(),
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

impl InputDraft {
    pub(super) fn plan(&self, from: usize) -> InputPlan {
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
            from,
            view: self.view.as_deref().map(Into::into),
            queue: settings,
        }
    }
}
