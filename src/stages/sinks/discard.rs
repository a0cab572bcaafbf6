//! `discard`: takes everything and keeps nothing, for benchmarks and for branches that are switched
//! off.

use std::sync::Arc;

use async_trait::async_trait;

use crate::Result;
use crate::packet::{Packet, PayloadKind};
use crate::stage::{Build, Context, Endpoint, Joins, Lookahead, Sink, StageKind};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "discard",
    doc: "Takes everything and keeps nothing, for measuring and for branches that are switched \
          off.",
    accepts: &PayloadKind::ALL,
    emits: &[],
    params: &[],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Sink(build),
};

fn build(_context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    Ok(Arc::new(DiscardSink))
}

struct DiscardSink;

#[async_trait]
impl Sink for DiscardSink {
    fn destination(&self, kind: PayloadKind) -> String {
        format!("discard/{}", kind.plural())
    }

    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        vec![Ok(()); batch.len()]
    }
}
