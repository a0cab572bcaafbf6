//! The cache's memory tier through its real handle, on one thread: operations a second over 4,096
//! vectors of 2 KiB in random order, with the process's recorder counting. Peers in the same
//! program: moka itself, and a `HashMap` behind a `Mutex`.

mod report;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opusflow::cache::{Cache, Key};
use opusflow::telemetry::Exporter;

const ENTRIES: usize = 4096;
const VALUE: usize = 2048;
const OPERATIONS: usize = 4_000_000;
const TTL: Duration = Duration::from_secs(3600);

/// Entry numbers, each of them often, in an order that the next line of memory does not tell.
fn order() -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..ENTRIES * 16)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize % ENTRIES
        })
        .collect()
}

struct Bench {
    keys: Vec<Key>,
    digests: Vec<[u8; 32]>,
    order: Vec<usize>,
    cache: Cache,
    moka: moka::sync::Cache<[u8; 32], Bytes>,
    map: Mutex<HashMap<[u8; 32], Bytes>>,
}

impl Bench {
    fn new() -> Self {
        let keys: Vec<Key> = (0..ENTRIES)
            .map(|n| Key::builder("encode").number(n as u64).finish())
            .collect();
        let digests: Vec<[u8; 32]> = keys.iter().map(|key| *key.digest()).collect();
        let cache = Cache::in_memory(512 << 20);
        let moka = moka::sync::Cache::builder()
            .max_capacity(ENTRIES as u64 * 2)
            .time_to_live(TTL)
            .build();
        let mut map = HashMap::new();
        for (n, key) in keys.iter().enumerate() {
            let value = Bytes::from(vec![n as u8; VALUE]);
            cache.put(key, value.clone(), TTL);
            moka.insert(digests[n], value.clone());
            map.insert(digests[n], value);
        }
        Self {
            keys,
            digests,
            order: order(),
            cache,
            moka,
            map: Mutex::new(map),
        }
    }

    /// Operations a second of what finds the value of entry `n`.
    fn measure(&self, mut find: impl FnMut(usize) -> Bytes) -> f64 {
        let began = Instant::now();
        for &n in self.order.iter().cycle().take(OPERATIONS) {
            black_box(find(n));
        }
        OPERATIONS as f64 / began.elapsed().as_secs_f64()
    }

    async fn find(&self) -> f64 {
        let began = Instant::now();
        for &n in self.order.iter().cycle().take(OPERATIONS) {
            black_box(self.cache.find(&self.keys[n]).await.expect("it is there"));
        }
        OPERATIONS as f64 / began.elapsed().as_secs_f64()
    }

    async fn get_or_compute(&self) -> f64 {
        let began = Instant::now();
        for &n in self.order.iter().cycle().take(OPERATIONS) {
            let found = self
                .cache
                .get_or_compute(&self.keys[n], TTL, || async { unreachable!("it is there") });
            black_box(found.await.expect("it is there"));
        }
        OPERATIONS as f64 / began.elapsed().as_secs_f64()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    Exporter::install(None).expect("the only recorder");
    let bench = Bench::new();
    for round in report::rounds() {
        let print = |variant: &str, value: f64| {
            report::figure("cache", variant, round, value, "operations/s")
        };
        print(
            "opusflow_peek",
            bench.measure(|n| bench.cache.peek(&bench.keys[n]).expect("it is there")),
        );
        print(
            "moka_get",
            bench.measure(|n| bench.moka.get(&bench.digests[n]).expect("it is there")),
        );
        print("opusflow_find", bench.find().await);
        print(
            "mutex_hashmap_get",
            bench.measure(|n| bench.map.lock().expect("one thread")[&bench.digests[n]].clone()),
        );
        print("opusflow_get_or_compute", bench.get_or_compute().await);
    }
}
