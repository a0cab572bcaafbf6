//! `redis`: the latest record of each kind by stream, and a bounded Redis stream of all, for
//! dashboards. It is not required by default: without Redis a pipeline goes on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::OnceCell;

use crate::codec::Codec;
use crate::config::shape::{Default, Field, Type};
use crate::packet::{Packet, PayloadKind};
use crate::stage::{Build, Context, Endpoint, Joins, Lookahead, Sink, StageKind};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "redis",
    doc: "The latest record of each kind in the hash `PREFIX:latest:STREAM`, and all of them in \
          the Redis stream `PREFIX:records:STREAM`, as JSON.",
    accepts: &PayloadKind::ALL,
    emits: &[],
    params: &[
        Field {
            name: "url",
            ty: Type::Secret,
            default: Default::Absent,
            doc: "Where Redis is; the cache's Redis when left out.",
        },
        Field {
            name: "prefix",
            ty: Type::Text,
            default: Default::Is("opusflow"),
            doc: "First part of every key.",
        },
        Field {
            name: "keep",
            ty: Type::Int(1, 10_000_000),
            default: Default::Is("1000"),
            doc: "About how many records a Redis stream keeps.",
        },
        Field {
            name: "ttl",
            ty: Type::Duration,
            default: Default::Is("24h"),
            doc: "How long a stream's keys live after its last record.",
        },
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Sink(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    let params = context.params;
    let url = params
        .opt_secret("url")
        .map(|url| url.reveal().to_owned())
        .or_else(|| context.deps.redis.clone());
    let url = url.ok_or_else(|| {
        Error::config("there is no Redis to write to")
            .hint("set `with: { url: ... }` or `cache: { redis: ... }`")
    })?;
    let client = redis::Client::open(url).map_err(|_| {
        Error::config("the Redis URL does not parse").hint("write redis://HOST:PORT/DB")
    })?;
    Ok(Arc::new(RedisSink {
        client,
        connection: OnceCell::new(),
        prefix: params.text("prefix").to_string(),
        keep: params.int("keep").unsigned_abs() as usize,
        ttl: params.duration("ttl"),
    }))
}

struct RedisSink {
    client: redis::Client,
    connection: OnceCell<ConnectionManager>,
    prefix: String,
    keep: usize,
    ttl: Duration,
}

#[async_trait]
impl Sink for RedisSink {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let outcome = self.write(batch).await;
        vec![outcome; batch.len()]
    }

    fn destination(&self, kind: PayloadKind) -> String {
        format!("{}:{}", self.prefix, kind.plural())
    }
}

impl RedisSink {
    async fn write(&self, batch: &[Packet]) -> Result<()> {
        let Some(first) = batch.first() else {
            return Ok(());
        };
        let stream = &first.head.channel.stream.id;
        let (latest, records) = (
            format!("{}:latest:{stream}", self.prefix),
            format!("{}:records:{stream}", self.prefix),
        );
        let mut pipe = redis::pipe();
        for packet in batch {
            let (kind, json) = (packet.payload.kind().as_str(), Codec::json().encode(packet));
            pipe.hset(&latest, kind, &json).ignore();
            pipe.xadd_maxlen(
                &records,
                redis::streams::StreamMaxlen::Approx(self.keep),
                "*",
                &[("kind", kind.as_bytes()), ("record", &json)],
            )
            .ignore();
        }
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        pipe.expire(&latest, seconds)
            .ignore()
            .expire(&records, seconds)
            .ignore();
        let away = |error: redis::RedisError| {
            Error::external("Redis did not take the records").because(error)
        };
        let mut connection = self.connection().await.map_err(away)?;
        pipe.query_async::<()>(&mut connection).await.map_err(away)
    }

    async fn connection(&self) -> redis::RedisResult<ConnectionManager> {
        let limits = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)))
            .set_number_of_retries(1);
        self.connection
            .get_or_try_init(|| self.client.get_connection_manager_with_config(limits))
            .await
            .cloned()
    }
}
