//! A message on its way to Kafka, and the report of its delivery.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// What librdkafka and we keep for a message beside its bytes.
const OVERHEAD: usize = 512;

/// A message to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The topic.
    pub topic: Arc<str>,
    /// The key: messages with equal keys keep their order.
    pub key: Arc<str>,
    /// The record.
    pub payload: Bytes,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl Outgoing {
    /// What it weighs against the bytes in flight.
    pub fn weight(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        self.payload.len() + self.key.len() + self.topic.len() + headers + OVERHEAD
    }
}

/// Where Kafka put a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// What becomes of a message, to be awaited: all its replicas have it, or it failed for good. It waits
/// as long as an outage lasts.
#[must_use = "a message counts as delivered only by its report"]
#[derive(Debug)]
pub struct DeliveryReport(pub(super) oneshot::Receiver<Result<Delivery>>);

impl Future for DeliveryReport {
    type Output = Result<Delivery>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let report = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(
            report.unwrap_or_else(|_| Err(Error::bug("the kafka producer forgot a message"))),
        )
    }
}
