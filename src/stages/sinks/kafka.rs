//! `kafka`: each packet a record on its kind's topic. A packet counts as delivered when all
//! replicas have it; while the brokers are away, delivery waits.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::broker::{DeliveryReport, Outgoing};
use crate::codec;
use crate::packet::{Packet, PayloadKind, now_micros};
use crate::stage::{Build, Context, Endpoint, Joins, Kafka, Lookahead, Sink, StageKind};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "kafka",
    doc: "Each packet a record on the topic `NAMESPACE.RECORDS.v1`, keyed by its stream. Brokers, \
          encoding and topics are set under `kafka:`.",
    accepts: &PayloadKind::ALL,
    emits: &[],
    params: &[],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Kafka,
    lookahead: Lookahead::none,
    build: Build::Sink(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    let kafka = context.deps.kafka.clone();
    let kafka = kafka.ok_or_else(|| {
        Error::config("there is no broker to write to").hint("add the key `kafka:` to the pipeline")
    })?;
    Ok(Arc::new(KafkaSink { kafka }))
}

struct KafkaSink {
    kafka: Kafka,
}

#[async_trait]
impl Sink for KafkaSink {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let mut reports: Vec<Result<DeliveryReport>> = Vec::with_capacity(batch.len());
        for packet in batch {
            reports.push(self.send(packet).await);
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for report in reports {
            outcomes.push(match report {
                Ok(report) => report.await.map(drop),
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    fn destination(&self, kind: PayloadKind) -> String {
        codec::topic(&self.kafka.namespace, kind)
    }
}

impl KafkaSink {
    async fn send(&self, packet: &Packet) -> Result<DeliveryReport> {
        let codec = &self.kafka.codec;
        let message = Outgoing {
            topic: codec::topic_of(&self.kafka.namespace, &packet.payload).into(),
            key: codec::key(packet).into(),
            payload: Bytes::from(codec.encode(packet)),
            headers: codec::headers(packet, codec.encoding()),
            // Brokers refuse timestamps ahead of their clock, and a film's event time runs ahead
            // when it is read faster than it plays.
            timestamp_ms: codec::timestamp_ms(packet).min(now_micros() / 1000),
        };
        self.kafka.producer.send(message).await
    }
}
