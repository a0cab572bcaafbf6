//! The cache over a real Redis. The tests that kill and freeze it start a `redis-server` of their
//! own on a loopback port; those that only read and write use the one at `REDIS_URL`.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its own functions too"
)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opusflow::cache::{Cache, CacheSettings, CacheSource, Key};
use opusflow::error::Error;

const TTL: Duration = Duration::from_secs(60);
const FLUSH: Duration = Duration::from_secs(5);

/// A Redis of our own; it goes with the test.
struct Redis {
    port: u16,
    server: Option<Child>,
}

impl Redis {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut redis = Self { port, server: None };
        redis.serve().await;
        redis
    }

    async fn serve(&mut self) {
        let port = self.port.to_string();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--requirepass",
            "hunter2",
        ];
        let server = Command::new("redis-server")
            .args(arguments)
            .stdout(Stdio::null())
            .spawn();
        self.server = Some(server.expect("redis-server is installed"));
        until(Duration::from_secs(10), async || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        })
        .await;
    }

    fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        let pid = self.server.as_ref().expect("it runs").id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn url(&self) -> String {
        format!("redis://:hunter2@127.0.0.1:{}/", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}

async fn until(limit: Duration, mut done: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done().await {
        assert!(
            began.elapsed() < limit,
            "it did not come to pass within {limit:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

async fn open(url: &str) -> Cache {
    Cache::open(&CacheSettings {
        memory: 1 << 20,
        redis: Some(url.to_owned()),
        compress_above: 1024,
    })
    .await
    .unwrap()
}

fn shared_url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL names a Redis")
}

/// A key that no other run has used.
fn key(name: &str) -> Key {
    Key::builder("test")
        .part(name)
        .number(rand::random())
        .finish()
}

async fn ask(cache: &Cache, key: &Key, value: &'static str) -> (Bytes, CacheSource) {
    cache
        .get_or_compute(key, TTL, || async {
            Ok(Bytes::from_static(value.as_bytes()))
        })
        .await
        .unwrap()
}

/// A second process (here: a second handle with an empty memory) finds what the first computed.
#[tokio::test(flavor = "multi_thread")]
async fn second_run_hits_redis() {
    let (first, keys) = (open(&shared_url()).await, [key("a"), key("b"), key("c")]);
    let long = Bytes::from(vec![7; 300_000]);
    assert_eq!(
        ask(&first, &keys[0], "vector").await.1,
        CacheSource::Computed
    );
    first
        .get_or_compute(&keys[1], TTL, || async { Ok(long.clone()) })
        .await
        .unwrap();
    assert!(first.flush(FLUSH).await);

    let second = open(&shared_url()).await;
    let never = || async { Err(Error::bug("it must not be computed again")) };
    assert_eq!(
        second.get_or_compute(&keys[0], TTL, never).await.unwrap(),
        (Bytes::from_static(b"vector"), CacheSource::Redis)
    );
    assert_eq!(
        second.get_or_compute(&keys[0], TTL, never).await.unwrap().1,
        CacheSource::Memory
    );
    let found = second.find_many(&keys).await;
    assert_eq!(
        found[0].as_ref().map(|found| found.1),
        Some(CacheSource::Memory)
    );
    assert_eq!(found[1], Some((long, CacheSource::Redis)));
    assert_eq!(found[2], None);
    let stats = second.stats();
    assert_eq!(
        (
            stats.ops["test"].redis,
            stats.ops["test"].memory,
            stats.ops["test"].errors
        ),
        (2, 2, 0)
    );
    assert_eq!(stats.redis_up, Some(true));
}

/// What lies in Redis is compressed, ends with its TTL, and is a miss once it is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn value_in_redis_is_compressed_ends_and_survives_damage() {
    let (cache, long, short) = (open(&shared_url()).await, key("long"), key("short"));
    cache.put(
        &long,
        Bytes::from(vec![7; 300_000]),
        Duration::from_secs(30),
    );
    cache.put(
        &short,
        Bytes::from_static(b"brief"),
        Duration::from_millis(300),
    );
    assert!(cache.flush(FLUSH).await);
    let client = redis::Client::open(shared_url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let length: usize = redis::cmd("STRLEN")
        .arg(long.redis())
        .query_async(&mut raw)
        .await
        .unwrap();
    assert!(length > 0 && length < 3000, "{length} bytes");
    let left: i64 = redis::cmd("PTTL")
        .arg(long.redis())
        .query_async(&mut raw)
        .await
        .unwrap();
    assert!((25_000..=30_000).contains(&left), "{left} ms");

    redis::cmd("SETRANGE")
        .arg(long.redis())
        .arg(40)
        .arg("damage")
        .query_async::<()>(&mut raw)
        .await
        .unwrap();
    cache.clear();
    assert_eq!(ask(&cache, &long, "again").await.1, CacheSource::Computed);
    assert_eq!(cache.stats().ops["test"].errors, 1);
    until(Duration::from_secs(2), async || {
        cache.clear();
        cache.find(&short).await.is_none()
    })
    .await;
}

/// Redis is killed under load: requesters go on from memory, the loss is noticed within a second also
/// when nobody asks, and it comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn killed_redis_costs_its_tier_and_heals() {
    let mut redis = Redis::start().await;
    let (cache, idle) = (open(&redis.url()).await, open(&redis.url()).await);
    let keys = [key("before"), key("during"), key("after")];
    ask(&cache, &keys[0], "before").await;
    assert!(cache.flush(FLUSH).await);

    redis.kill();
    let (busy, began) = (ask(&cache, &keys[1], "during").await, Instant::now());
    assert_eq!(busy.1, CacheSource::Computed);
    let noticed = until(Duration::from_secs(1), async || {
        idle.stats().redis_up == Some(false)
    })
    .await;
    assert!(noticed < Duration::from_secs(1), "{noticed:?}");
    assert_eq!(
        ask(&cache, &keys[0], "").await,
        (Bytes::from_static(b"before"), CacheSource::Memory)
    );
    assert!(began.elapsed() < Duration::from_secs(2));

    let free = Instant::now();
    for n in 0..200 {
        ask(
            &cache,
            &Key::builder("test")
                .number(n)
                .number(rand::random())
                .finish(),
            "alone",
        )
        .await;
    }
    assert!(
        free.elapsed() < Duration::from_millis(200),
        "while it is away a call costs nothing: {:?}",
        free.elapsed()
    );

    redis.serve().await;
    until(Duration::from_secs(5), async || {
        cache.stats().redis_up == Some(true) && idle.stats().redis_up == Some(true)
    })
    .await;
    ask(&cache, &keys[2], "after").await;
    assert!(cache.flush(FLUSH).await);
    assert_eq!(
        ask(&idle, &keys[2], "").await,
        (Bytes::from_static(b"after"), CacheSource::Redis)
    );
}

/// A Redis that takes connections and says nothing is as bad as none: one caller waits, once, for a
/// quarter of a second.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_redis_delays_one_call_and_heals() {
    let redis = Redis::start().await;
    let cache = open(&redis.url()).await;
    redis.signal("-STOP");
    let began = Instant::now();
    assert_eq!(
        ask(&cache, &key("frozen"), "x").await.1,
        CacheSource::Computed
    );
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(cache.stats().redis_up, Some(false));
    let began = Instant::now();
    ask(&cache, &key("still"), "x").await;
    assert!(
        began.elapsed() < Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
    redis.signal("-CONT");
    until(Duration::from_secs(5), async || {
        cache.stats().redis_up == Some(true)
    })
    .await;
}

/// A full Redis refuses writes but still answers reads: it stays in use.
#[tokio::test(flavor = "multi_thread")]
async fn full_redis_stays_readable() {
    let redis = Redis::start().await;
    let (cache, kept) = (open(&redis.url()).await, key("kept"));
    ask(&cache, &kept, "kept").await;
    assert!(cache.flush(FLUSH).await);
    let mut raw = redis::Client::open(redis.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg("1")
        .query_async::<()>(&mut raw)
        .await
        .unwrap();
    ask(&cache, &key("refused"), "x").await;
    cache.flush(FLUSH).await;
    assert_eq!(cache.stats().redis_up, Some(true));
    assert_eq!(cache.stats().ops["test"].errors, 1);
    cache.clear();
    assert_eq!(
        ask(&cache, &kept, "").await,
        (Bytes::from_static(b"kept"), CacheSource::Redis)
    );
}
