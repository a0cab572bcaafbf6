//! The Redis tier, behind a breaker: while Redis does not answer no call waits for it, and a probe
//! in the background finds it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::RwLock;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::envelope::{self, LONGEST};
use super::key::Key;
use super::op::OpCounters;
use crate::error::{Error, Result};
use crate::redact::redact_url;
use crate::telemetry::{Family, names};

/// The longest a caller waits for Redis before the breaker opens.
const CALL_TIMEOUT: Duration = Duration::from_millis(250);
/// Twice the pace at which a loss must be noticed, as the call's own wait comes on top.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// Writes that may wait, and their bytes in KiB.
const MAX_WRITES: usize = 4096;
const MAX_WRITE_KIB: usize = 64 << 10;
/// One pipeline's writes, and their bytes.
const PIPELINE: usize = 128;
const PIPELINE_BYTES: usize = 1 << 20;

/// Redis, as one cache uses it.
pub(super) struct RedisTier {
    link: Arc<RedisLink>,
    writes: mpsc::Sender<Write>,
    space: Arc<Semaphore>,
    _probe: DropGuard,
}

/// The connection and the breaker.
struct RedisLink {
    client: redis::Client,
    url: String,
    manager: RwLock<Option<ConnectionManager>>,
    refused: AtomicBool,
    up: metrics::Gauge,
    ops: Arc<Family<OpCounters>>,
}

enum Write {
    Put {
        key: Key,
        value: Bytes,
        ttl: Duration,
        _space: OwnedSemaphorePermit,
    },
    Flush(oneshot::Sender<()>),
}

impl RedisTier {
    pub async fn open(
        url: &str,
        compress_above: usize,
        ops: Arc<Family<OpCounters>>,
    ) -> Result<Self> {
        let shown = redact_url(url);
        let client = redis::Client::open(url).map_err(|error| {
            Error::config(format!("{shown} is not a Redis URL: {:?}", error.kind()))
                .hint("write redis://[user:password@]host:port/db, or rediss:// for TLS")
        })?;
        let manager = RwLock::new(None);
        let up = names::CACHE_REDIS_UP.gauge(&[]);
        let link = Arc::new(RedisLink {
            client,
            url: shown,
            manager,
            refused: AtomicBool::new(false),
            up,
            ops,
        });
        if let Err(why) = link.connect().await {
            tracing::warn!(redis = %link.url, error = %why, "redis does not answer, the cache is \
                                                             memory only until it does");
        }
        let (writes, queue) = mpsc::channel(MAX_WRITES);
        tokio::spawn(write(Arc::clone(&link), queue, compress_above));
        let ended = CancellationToken::new();
        tokio::spawn(probe(Arc::clone(&link), ended.clone()));
        Ok(Self {
            link,
            writes,
            space: Arc::new(Semaphore::new(MAX_WRITE_KIB)),
            _probe: ended.drop_guard(),
        })
    }

    pub fn is_up(&self) -> bool {
        self.link.manager.read().is_some()
    }

    /// The value and what is left of its life. Anything wrong is a miss, counted as an error.
    pub async fn find(&self, key: &Key) -> Option<(Bytes, Duration)> {
        let command = redis::cmd("GET").arg(key.redis()).to_owned();
        let call =
            |mut manager| async move { command.query_async::<Option<Vec<u8>>>(&mut manager).await };
        self.unseal(key, self.link.call(key.op(), call).await??)
    }

    /// The same for many in one round trip.
    pub async fn find_many(&self, keys: &[&Key]) -> Vec<Option<(Bytes, Duration)>> {
        let Some(first) = keys.first() else {
            return Vec::new();
        };
        let command = redis::cmd("MGET")
            .arg(keys.iter().map(|key| key.redis()).collect::<Vec<_>>())
            .to_owned();
        let call = |mut manager| async move {
            command
                .query_async::<Vec<Option<Vec<u8>>>>(&mut manager)
                .await
        };
        let mut values = self.link.call(first.op(), call).await.unwrap_or_default();
        values.resize(keys.len(), None);
        keys.iter()
            .zip(values)
            .map(|(key, value)| self.unseal(key, value?))
            .collect()
    }

    fn unseal(&self, key: &Key, sealed: Vec<u8>) -> Option<(Bytes, Duration)> {
        let value = envelope::unseal(key, Bytes::from(sealed), now_ms());
        if value.is_none() {
            self.link.ops.with(key.op()).failed();
        }
        value
    }

    /// Queues a write. It is left out where Redis is away or writes pile up: the next requester
    /// computes again.
    pub fn put(&self, key: &Key, value: Bytes, ttl: Duration) {
        let space = u32::try_from(value.len() / 1024 + 1)
            .ok()
            .filter(|_| self.is_up() && value.len() <= LONGEST && !ttl.is_zero());
        let space = space.and_then(|kib| Arc::clone(&self.space).try_acquire_many_owned(kib).ok());
        let queued = space.is_some_and(|_space| {
            self.writes
                .try_send(Write::Put {
                    key: *key,
                    value,
                    ttl,
                    _space,
                })
                .is_ok()
        });
        if !queued {
            self.link.ops.with(key.op()).metrics.skipped.increment(1);
        }
    }

    pub async fn flush(&self, limit: Duration) -> bool {
        let wait = async {
            let (done, written) = oneshot::channel();
            self.writes.send(Write::Flush(done)).await.is_ok() && written.await.is_ok()
        };
        timeout(limit, wait).await.unwrap_or(false) && self.is_up()
    }
}

impl RedisLink {
    /// One call to Redis. None while the breaker is open, and where the call failed.
    async fn call<T, C>(
        &self,
        op: &'static str,
        run: impl FnOnce(ConnectionManager) -> C,
    ) -> Option<T>
    where
        C: Future<Output = RedisResult<T>>,
    {
        let manager = self.manager.read().clone()?;
        let op = self.ops.with(op);
        let began = Instant::now();
        let outcome = timeout(CALL_TIMEOUT, run(manager)).await;
        op.metrics
            .redis_seconds
            .record(began.elapsed().as_secs_f64());
        match outcome {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) if is_gone(&error) => self.mark_down(&error.to_string()),
            Ok(Err(error)) => self.warn_refused(&error),
            Err(_) => self.mark_down("no answer in 250 ms"),
        }
        op.failed();
        None
    }

    async fn connect(&self) -> Result<(), String> {
        let settings = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CALL_TIMEOUT))
            .set_response_timeout(Some(CALL_TIMEOUT));
        let connect = async {
            let mut manager =
                ConnectionManager::new_with_config(self.client.clone(), settings).await?;
            redis::cmd("PING").query_async::<()>(&mut manager).await?;
            Ok::<_, RedisError>(manager)
        };
        let manager = match timeout(2 * CALL_TIMEOUT, connect).await {
            Ok(manager) => manager.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer in 500 ms".to_owned()),
        };
        *self.manager.write() = Some(manager);
        self.up.set(1.0);
        Ok(())
    }

    fn mark_down(&self, why: &str) {
        if self.manager.write().take().is_some() {
            self.up.set(0.0);
            tracing::warn!(redis = %self.url, error = why, "redis does not answer, the cache is \
                                                            memory only until it does");
        }
    }

    /// Redis answers but refuses: out of memory, read only. Said once until it accepts again.
    fn warn_refused(&self, error: &RedisError) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(redis = %self.url, %error, "redis refuses a call, results are kept in \
                                                       memory");
        }
    }
}

/// Whether the next call would fail the same way.
fn is_gone(error: &RedisError) -> bool {
    let away = [
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "NOAUTH",
        "WRONGPASS",
        "NOPERM",
    ];
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.code().is_some_and(|code| away.contains(&code))
}

/// Watches a Redis that answers, also when nobody asks it, and tries for one that does not.
async fn probe(link: Arc<RedisLink>, ended: CancellationToken) {
    let mut watch = interval(PING_INTERVAL);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tried = Instant::now();
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = watch.tick() => {}
        }
        let manager = link.manager.read().clone();
        match manager {
            Some(mut manager) => {
                let ping = redis::cmd("PING");
                match timeout(CALL_TIMEOUT, ping.query_async::<()>(&mut manager)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => link.mark_down(&error.to_string()),
                    Err(_) => link.mark_down("no answer in 250 ms"),
                }
            }
            None if tried.elapsed() >= RECONNECT_INTERVAL - PING_INTERVAL / 2 => {
                tried = Instant::now();
                if link.connect().await.is_ok() {
                    tracing::info!(redis = %link.url, "redis answers again");
                }
            }
            None => {}
        }
    }
}

/// Writes what is queued, pipelined, until the last handle of the cache has gone and the queue is
/// empty.
async fn write(link: Arc<RedisLink>, mut queue: mpsc::Receiver<Write>, compress_above: usize) {
    let mut batch = Vec::with_capacity(PIPELINE);
    while queue.recv_many(&mut batch, PIPELINE).await > 0 {
        let (mut puts, mut bytes) = (Vec::new(), 0);
        for write in batch.drain(..) {
            match write {
                Write::Put {
                    key,
                    value,
                    ttl,
                    _space,
                } => {
                    bytes += value.len();
                    puts.push((key, value, ttl, _space));
                    if bytes >= PIPELINE_BYTES {
                        send(&link, std::mem::take(&mut puts), compress_above).await;
                        bytes = 0;
                    }
                }
                Write::Flush(done) => {
                    send(&link, std::mem::take(&mut puts), compress_above).await;
                    let _ = done.send(());
                }
            }
        }
        send(&link, puts, compress_above).await;
    }
}

async fn send(
    link: &RedisLink,
    puts: Vec<(Key, Bytes, Duration, OwnedSemaphorePermit)>,
    compress_above: usize,
) {
    let Some(op) = puts.first().map(|put| put.0.op()) else {
        return;
    };
    let seal = move || {
        let (mut pipeline, now) = (redis::pipe(), now_ms());
        for (key, value, ttl, _space) in &puts {
            let ttl = u64::try_from(ttl.as_millis())
                .unwrap_or(u64::MAX >> 1)
                .max(1);
            let sealed = envelope::seal(key, value, compress_above, now.saturating_add(ttl));
            pipeline
                .cmd("SET")
                .arg(key.redis())
                .arg(sealed)
                .arg("PX")
                .arg(ttl)
                .ignore();
        }
        pipeline
    };
    let Ok(pipeline) = tokio::task::spawn_blocking(seal).await else {
        return;
    };
    let call = |mut manager| async move { pipeline.query_async::<()>(&mut manager).await };
    if link.call(op, call).await.is_some() {
        link.refused.store(false, Ordering::Relaxed);
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}
