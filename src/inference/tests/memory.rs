//! A model that takes memory by the item: limits, measured batches, several workers, and putting it
//! down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tch::{Kind, Tensor};

use crate::error::{Kind as Who, Result};
use crate::inference::*;
use crate::tensor::{self, Device};

const MIB: u64 = 1 << 20;

/// What the models of a test did.
#[derive(Default)]
struct Log {
    batches: Mutex<Vec<usize>>,
    /// Items by the worker's number.
    answered: Mutex<Vec<usize>>,
    made: AtomicUsize,
    held: AtomicBool,
    graphs: AtomicBool,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            answered: Mutex::new(vec![0; 4]),
            ..Self::default()
        })
    }

    fn sizes(&self) -> Vec<usize> {
        std::mem::take(&mut *self.batches.lock())
    }
}

/// Weights of 4 MiB, and 2 MiB for an item.
struct Hungry {
    log: Arc<Log>,
    number: usize,
    _weights: Tensor,
}

fn floats(mib: usize) -> Result<Tensor> {
    Ok(Tensor::f_ones(
        [(mib << 18) as i64],
        (Kind::Float, Device::Cpu),
    )?)
}

impl Hungry {
    fn load(log: &Arc<Log>, number: usize) -> Result<Self> {
        log.made.fetch_add(1, Ordering::SeqCst);
        Ok(Self {
            log: Arc::clone(log),
            number,
            _weights: floats(4)?,
        })
    }
}

impl Model for Hungry {
    type Item = usize;
    type Answer = usize;

    fn run(&mut self, items: &[&usize], _: &dyn Fn(usize) -> bool) -> Result<Vec<Result<usize>>> {
        self.log.batches.lock().push(items.len());
        let leaf = Tensor::f_from_slice(&[1f32])?.set_requires_grad(true);
        if tensor::grad_enabled() || leaf.f_mul_scalar(2.)?.requires_grad() {
            self.log.graphs.store(true, Ordering::SeqCst);
        }
        let pages = floats(2 * items.len())?;
        while self.log.held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A call costs 20 ms and an item 1 ms, so that each doubling up to 64 is worth it.
        std::thread::sleep(Duration::from_millis(20 + items.len() as u64));
        self.log.answered.lock()[self.number] += items.len();
        Ok(items
            .iter()
            .map(|item| Ok(**item + pages.numel() - pages.numel()))
            .collect())
    }

    fn sample(&self) -> Option<usize> {
        Some(0)
    }

    fn shape(_: &usize) -> String {
        "2 MiB".to_owned()
    }
}

async fn worker(log: &Arc<Log>, settings: WorkerSettings) -> Result<Worker<Hungry>> {
    let log = Arc::clone(log);
    Worker::spawn("hungry", settings, move || Hungry::load(&log, 0)).await
}

fn limited(batch: BatchSettings, mib: u64) -> WorkerSettings {
    WorkerSettings {
        memory_limit: Some(mib * MIB),
        ..WorkerSettings::on_cpu(batch)
    }
}

async fn ask_all(worker: &Worker<Hungry>, items: usize) -> Vec<Result<usize>> {
    join_all((0..items).map(|item| worker.ask(item, Requester::new("a", false)))).await
}

#[tokio::test]
async fn memory_limit_halves_the_batches_that_do_not_fit() {
    let log = Log::new();
    let worker = worker(
        &log,
        limited(BatchSettings::new(8, Duration::from_millis(500)), 4 + 9),
    )
    .await
    .unwrap();
    for answer in ask_all(&worker, 8).await.into_iter().enumerate() {
        assert_eq!(answer.1.unwrap(), answer.0);
    }
    assert_eq!(log.sizes(), [8, 4, 4]);
    assert!(ask_all(&worker, 4).await.iter().all(Result::is_ok));
    assert_eq!((log.sizes(), log.made.load(Ordering::SeqCst)), (vec![4], 1));
}

#[tokio::test]
async fn an_item_that_does_not_fit_alone_is_refused_and_the_worker_goes_on() {
    let log = Log::new();
    let worker = worker(&log, limited(BatchSettings::new(2, Duration::ZERO), 5))
        .await
        .unwrap();
    let refused = ask_all(&worker, 1).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), Who::Overload);
    assert!(
        refused.message().contains("out of memory on a single item"),
        "{refused}"
    );
    assert_eq!(log.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn weights_above_the_limit_are_refused_at_the_start() {
    let refused = worker(
        &Log::new(),
        limited(BatchSettings::new(2, Duration::ZERO), 3),
    )
    .await
    .unwrap_err();
    assert_eq!(
        (refused.kind(), refused.message()),
        (
            Who::Config,
            "model hungry cannot be loaded: its weights hold 4 MiB, its memory_limit is 3 MiB"
        )
    );
}

#[tokio::test]
async fn batches_are_measured_once_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (model, weights, precision) = ("hungry".to_owned(), "12".to_owned(), "f32".to_owned());
    let kept = BatchSizeStore {
        folder: folder.path().to_owned(),
        model,
        weights,
        precision,
        options: String::new(),
    };
    let batch = BatchSettings::measured(Duration::from_millis(500), 128);
    let settings = WorkerSettings {
        batch_sizes: Some(kept),
        ..WorkerSettings::on_cpu(batch)
    };
    let log = Log::new();
    let first = worker(&log, settings.clone()).await.unwrap();
    let tried = log.sizes();
    // On a busy machine the clock may find a knee before 64.
    let largest = *tried.iter().max().unwrap();
    assert!(tried.starts_with(&[1, 1, 2, 2, 4, 4, 8, 8]), "{tried:?}");
    assert!(ask_all(&first, 64).await.iter().all(Result::is_ok));
    let measured = log.sizes()[0];
    assert!(
        (8..=64).contains(&measured) && measured >= largest / 2,
        "{measured} of {tried:?}"
    );
    let again = worker(&log, settings).await.unwrap();
    assert_eq!(
        log.sizes(),
        [] as [usize; 0],
        "nothing is tried a second time"
    );
    assert!(ask_all(&again, 64).await.iter().all(Result::is_ok));
    assert_eq!(log.sizes()[0], measured);
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        text.contains("\"item\": \"2 MiB\"") && text.contains("\"per_second\""),
        "{text}"
    );
}

#[tokio::test]
async fn measuring_stops_at_the_memory_limit() {
    let log = Log::new();
    let worker = worker(
        &log,
        limited(
            BatchSettings::measured(Duration::from_millis(500), 64),
            4 + 9,
        ),
    )
    .await
    .unwrap();
    assert_eq!(log.sizes(), [1, 1, 2, 2, 4, 4, 8]);
    assert!(ask_all(&worker, 16).await.iter().all(Result::is_ok));
    assert_eq!(log.sizes(), [4, 4, 4, 4]);
}

#[tokio::test]
async fn an_unloaded_model_gives_its_memory_back_and_is_loaded_when_asked() {
    let log = Log::new();
    let worker = worker(
        &log,
        WorkerSettings::on_cpu(BatchSettings::new(1, Duration::ZERO)),
    )
    .await
    .unwrap();
    assert!(worker.idle().is_some());
    assert!(worker.unload().await);
    assert_eq!(
        (worker.idle(), worker.unload().await),
        (None, false),
        "there is nothing left to unload"
    );
    assert_eq!(ask_all(&worker, 1).await.remove(0).unwrap(), 0);
    assert_eq!(log.made.load(Ordering::SeqCst), 2);
    log.held.store(true, Ordering::SeqCst);
    let busy = worker.clone();
    let asking = tokio::spawn(async move { busy.ask(7, Requester::new("a", false)).await });
    while log.sizes().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while worker.load() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        (worker.idle(), worker.unload().await),
        (None, false),
        "a batch runs"
    );
    log.held.store(false, Ordering::SeqCst);
    assert_eq!(asking.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn relief_puts_down_the_longest_idle_until_it_is_enough() {
    let (log, workers) = (Log::new(), Workers::new());
    let key = |weights: &str| WorkerKey {
        weights: weights.to_owned(),
        device: "cpu".to_owned(),
        precision: "f32".to_owned(),
        options: String::new(),
    };
    let get = async |weights: &str, number: usize| {
        let log = Arc::clone(&log);
        let settings = WorkerSettings::on_cpu(BatchSettings::new(1, Duration::ZERO));
        workers
            .get(&key(weights), weights, settings, move || {
                Hungry::load(&log, number)
            })
            .await
            .unwrap()
    };
    let (old, new) = (get("old", 0).await, get("new", 1).await);
    assert_eq!(
        workers
            .reclaim(Duration::from_secs(3600), || false)
            .await
            .unloaded,
        0,
        "none has been idle for so long"
    );
    let enough = || old.idle().is_none();
    let relief = workers.reclaim(Duration::ZERO, enough).await;
    assert_eq!(
        (relief.unloaded, old.idle().is_none(), new.idle().is_some()),
        (1, true, true)
    );
    assert_eq!(workers.reclaim(Duration::ZERO, || false).await.unloaded, 1);
    assert_eq!(
        (
            ask_all(&old, 1).await.len(),
            ask_all(&new, 1).await.len(),
            log.made.load(Ordering::SeqCst)
        ),
        (1, 1, 4)
    );
}

#[tokio::test]
async fn work_goes_where_the_queue_is_shortest() {
    let log = Log::new();
    let mut workers = Vec::new();
    for number in 0..3 {
        let log = Arc::clone(&log);
        let settings = WorkerSettings::on_cpu(BatchSettings {
            max_size: 1,
            measured: false,
            max_wait: Duration::ZERO,
            queue: 64,
        });
        workers.push(
            Worker::spawn("many", settings, move || Hungry::load(&log, number))
                .await
                .unwrap(),
        );
    }
    // The first has four items before the pool is asked at all.
    log.held.store(true, Ordering::SeqCst);
    let ahead: Vec<_> = (0..4)
        .map(|item| {
            let first = workers[0].clone();
            tokio::spawn(async move { first.ask(item, Requester::new("ahead", false)).await })
        })
        .collect();
    let loads = async |loads: [usize; 3]| {
        while workers.iter().map(Worker::load).ne(loads) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    loads([4, 0, 0]).await;
    let pool = WorkerPool::new(workers.clone());
    let asks: Vec<_> = (0..9)
        .map(|item| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.ask(item, Requester::new("a", false)).await })
        })
        .collect();
    // Eight fill the others up to the first, and the ninth goes to any.
    while workers.iter().map(Worker::load).sum::<usize>() < 13 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        workers
            .iter()
            .all(|worker| (4..=5).contains(&worker.load()))
    );
    log.held.store(false, Ordering::SeqCst);
    for ask in asks.into_iter().chain(ahead) {
        ask.await.unwrap().unwrap();
    }
    assert_eq!(log.answered.lock().iter().sum::<usize>(), 13);
}

#[tokio::test]
async fn no_graph_is_built_on_a_workers_thread() {
    let log = Log::new();
    let worker = worker(
        &log,
        WorkerSettings::on_cpu(BatchSettings::new(1, Duration::ZERO)),
    )
    .await
    .unwrap();
    assert!(ask_all(&worker, 1).await[0].is_ok());
    assert!(!log.graphs.load(Ordering::SeqCst));
}
