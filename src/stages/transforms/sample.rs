//! `sample`: lets one frame in `every` through and absorbs the others.

use std::sync::Arc;

use async_trait::async_trait;

use crate::config::shape::{Default, Field, Type};
use crate::packet::{Payload, PayloadKind};
use crate::stage::{
    Build, Context, Emitter, Endpoint, Input, Joins, Lookahead, PacketDraft, StageKind, Transform,
};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "sample",
    doc: "Lets one frame in `every` through and absorbs the others. A lower `fps` of a view \
          leaves frames out before they are scaled, which is cheaper.",
    accepts: &[PayloadKind::Frame],
    emits: &[PayloadKind::Frame],
    params: &[Field {
        name: "every",
        ty: Type::Int(1, 1_000_000),
        default: Default::Is("1"),
        doc: "One frame in this many passes.",
    }],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Stateless(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Transform>> {
    Ok(Arc::new(Sample {
        every: context.params.int("every").unsigned_abs(),
    }))
}

struct Sample {
    every: u64,
}

#[async_trait]
impl Transform for Sample {
    async fn process(&self, input: Input<'_>, out: &mut Emitter) -> Result<()> {
        let Payload::Frame(frame) = &input.payload else {
            return Err(Error::bug("sample takes frames"));
        };
        if frame.index.is_multiple_of(self.every) {
            let span = input.head.span;
            out.emit(PacketDraft::new(input.payload, span));
        }
        Ok(())
    }
}
