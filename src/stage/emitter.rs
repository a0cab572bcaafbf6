//! What a transform emits: drafts, which the runner completes to packets.

use std::sync::Arc;

use super::in_flight::Held;
use crate::packet::{ModelTag, Payload, RecordId, Span};

/// A packet to be: the runner completes it with stream, origin, times, sequence number and
/// receipts.
#[derive(Debug)]
pub struct PacketDraft {
    /// What it carries.
    pub payload: Payload,
    /// Where in the stream it lies.
    pub span: Span,
    /// Which of several drafts with equal span it is.
    pub ordinal: u32,
    /// The model that made it.
    pub model: Option<Arc<ModelTag>>,
    /// The packets it was made of.
    pub parents: Vec<RecordId>,
    /// What it holds; nothing stands for the input of the call.
    pub(crate) held: Option<Vec<Held>>,
}

impl PacketDraft {
    /// Carries `payload` about `span`.
    pub fn new(payload: Payload, span: Span) -> Self {
        Self {
            payload,
            span,
            ordinal: 0,
            model: None,
            parents: Vec::new(),
            held: None,
        }
    }

    /// Names the model that made it.
    #[must_use]
    pub fn by(mut self, model: &Arc<ModelTag>) -> Self {
        self.model = Some(Arc::clone(model));
        self
    }

    /// Names the packets it was made of.
    #[must_use]
    pub fn from_records(mut self, parents: Vec<RecordId>) -> Self {
        self.parents = parents;
        self
    }

    /// Sets the number among drafts of equal span.
    #[must_use]
    pub fn ordinal(mut self, ordinal: u32) -> Self {
        self.ordinal = ordinal;
        self
    }

    /// Names the inputs that it stands for, where these are not just the input of the call.
    #[must_use]
    pub fn holding(mut self, held: Vec<Held>) -> Self {
        self.held = Some(held);
        self
    }
}

/// Takes what a transform emits.
#[derive(Debug, Default)]
pub struct Emitter {
    pub(crate) drafts: Vec<PacketDraft>,
    pub(crate) at_risk: Vec<Held>,
}

impl Emitter {
    /// Emits a draft. Drafts leave in the order in which they are emitted, when the call returns.
    pub fn emit(&mut self, draft: PacketDraft) {
        self.drafts.push(draft);
    }

    /// Names earlier inputs that are lost with this call's own if it fails.
    pub fn risk<'a>(&mut self, held: impl IntoIterator<Item = &'a Held>) {
        self.at_risk.extend(held.into_iter().map(Held::split));
    }
}
