//! Tests of the tiers together, memory only; those with a Redis are integration tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::error::{Error, Kind};

const TTL: Duration = Duration::from_secs(60);

fn key(n: u64) -> Key {
    Key::builder("encode").number(n).finish()
}

async fn memory(bytes: u64) -> Cache {
    Cache::open(&CacheSettings {
        memory: bytes,
        ..CacheSettings::default()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn second_asker_hits() {
    let cache = memory(1 << 20).await;
    let compute = || async { Ok(Bytes::from_static(b"vector")) };
    assert_eq!(
        cache.get_or_compute(&key(1), TTL, compute).await.unwrap(),
        (Bytes::from_static(b"vector"), CacheSource::Computed)
    );
    assert_eq!(
        cache.get_or_compute(&key(1), TTL, compute).await.unwrap().1,
        CacheSource::Memory
    );
    assert_eq!(
        cache.get_or_compute(&key(2), TTL, compute).await.unwrap().1,
        CacheSource::Computed
    );
    let stats = cache.stats();
    assert_eq!(
        stats.ops["encode"],
        OpStats {
            memory: 1,
            redis: 0,
            misses: 2,
            errors: 0
        }
    );
    assert_eq!((stats.entries, stats.redis_up), (2, None));
    cache.clear();
    assert_eq!((cache.stats().entries, cache.peek(&key(1))), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_askers_share_one_computation() {
    // 0 bytes of memory: the waiters must be served by the flight alone.
    for bytes in [0, 1 << 20] {
        let (cache, computed) = (memory(bytes).await, Arc::new(AtomicUsize::new(0)));
        let asks = (0..64).map(|_| {
            let (cache, computed) = (cache.clone(), Arc::clone(&computed));
            tokio::spawn(async move {
                let compute = || async {
                    computed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(Bytes::from_static(b"once"))
                };
                cache.get_or_compute(&key(7), TTL, compute).await.unwrap()
            })
        });
        for answer in futures::future::join_all(asks).await {
            assert_eq!(answer.unwrap().0, "once");
        }
        assert_eq!(computed.load(Ordering::Relaxed), 1, "{bytes} bytes");
        assert_eq!(cache.0.flights.len(), 0, "flights are forgotten");
    }
}

#[tokio::test]
async fn next_asker_computes_after_a_failure_and_after_a_cancelled_one() {
    let (cache, first, second) = (memory(1 << 20).await, key(1), key(2));
    let fails = cache.get_or_compute(&first, TTL, || async {
        tokio::task::yield_now().await;
        Err(Error::model("no answer"))
    });
    let works = cache.get_or_compute(&first, TTL, || async { Ok(Bytes::from_static(b"second")) });
    let (failed, worked) = tokio::join!(fails, works);
    assert_eq!(failed.unwrap_err().kind(), Kind::Model);
    assert_eq!(
        worked.unwrap(),
        (Bytes::from_static(b"second"), CacheSource::Computed)
    );

    let stuck = cache.get_or_compute(&second, TTL, std::future::pending);
    assert!(
        tokio::time::timeout(Duration::from_millis(5), stuck)
            .await
            .is_err()
    );
    let after = cache
        .get_or_compute(&second, TTL, || async { Ok(Bytes::from_static(b"third")) })
        .await
        .unwrap();
    assert_eq!(after.1, CacheSource::Computed);
    assert_eq!(cache.0.flights.len(), 0);
}

#[tokio::test]
async fn entries_end_with_their_own_ttl() {
    let cache = memory(1 << 20).await;
    cache.put(
        &key(1),
        Bytes::from_static(b"short"),
        Duration::from_millis(20),
    );
    cache.put(&key(2), Bytes::from_static(b"long"), TTL);
    assert!(cache.peek(&key(1)).is_some());
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(cache.peek(&key(1)), None);
    assert!(cache.peek(&key(2)).is_some());
}

#[tokio::test]
async fn memory_stays_within_its_bytes() {
    let cache = memory(1 << 20).await;
    for n in 0..4000 {
        cache.put(&key(n), Bytes::from(vec![0; 1000]), TTL);
    }
    let stats = cache.stats();
    assert!(stats.bytes <= 1 << 20 && stats.entries > 500, "{stats:?}");
}

#[tokio::test]
async fn redis_away_from_the_start_costs_nothing_but_its_tier() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let redis = Some(format!("redis://:hunter2@{closed}/"));
    let settings = CacheSettings {
        redis,
        ..CacheSettings::default()
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let cache = Cache::open(&settings).await.unwrap();
    let began = Instant::now();
    for n in 0..100 {
        cache
            .get_or_compute(&key(n), TTL, || async { Ok(Bytes::new()) })
            .await
            .unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(cache.stats().redis_up, Some(false));
}

#[tokio::test]
async fn wrong_url_is_a_config_error_without_its_secret() {
    let settings = CacheSettings {
        redis: Some("http://tom:hunter2@x".to_owned()),
        ..CacheSettings::default()
    };
    let error = Cache::open(&settings).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// How fast the memory tier answers; printed, as a figure of an unoptimised build on a shared
/// machine proves nothing.
#[tokio::test]
async fn hit_path_speed() {
    let cache = memory(64 << 20).await;
    let keys: Vec<_> = (0..1024).map(key).collect();
    keys.iter()
        .for_each(|key| cache.put(key, Bytes::from(vec![1; 2048]), TTL));
    let (began, rounds) = (Instant::now(), 200);
    for _ in 0..rounds {
        assert!(keys.iter().all(|key| cache.peek(key).is_some()));
    }
    let asked = f64::from(rounds) * keys.len() as f64;
    println!(
        "memory tier: {:.2} million hits a second",
        asked / began.elapsed().as_secs_f64() / 1e6
    );
}
