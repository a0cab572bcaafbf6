//! A fake model that can be held, refuses, panics and runs out of memory on demand.

mod memory;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{FutureExt, poll};
use parking_lot::{Condvar, Mutex};

use super::*;
use crate::error::{Error, Kind, Result};

const POISON: u32 = 666;
const REFUSED: u32 = 13;

#[derive(Default)]
struct Script {
    held: Mutex<bool>,
    released: Condvar,
    batches: Mutex<Vec<Vec<u32>>>,
    made: AtomicUsize,
    fits: Mutex<usize>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Script {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            fits: Mutex::new(usize::MAX),
            ..Self::default()
        })
    }

    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.released.notify_all();
    }

    fn batches(&self) -> Vec<Vec<u32>> {
        self.batches.lock().clone()
    }
}

struct Fake(Arc<Script>);

impl Model for Fake {
    type Item = u32;
    type Answer = u32;

    fn run(&mut self, items: &[&u32], _: &dyn Fn(usize) -> bool) -> Result<Vec<Result<u32>>> {
        let script = &self.0;
        script.most_running.fetch_max(
            script.running.fetch_add(1, Ordering::SeqCst) + 1,
            Ordering::SeqCst,
        );
        script
            .batches
            .lock()
            .push(items.iter().map(|item| **item).collect());
        let mut held = script.held.lock();
        while *held {
            script.released.wait(&mut held);
        }
        script.running.fetch_sub(1, Ordering::SeqCst);
        assert!(!items.iter().any(|item| **item == POISON), "poisoned");
        if items.len() > *script.fits.lock() {
            return Err(Error::model(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
            ));
        }
        Ok(items
            .iter()
            .map(|item| {
                if **item == REFUSED {
                    Err(Error::model("refused"))
                } else {
                    Ok(**item * 2)
                }
            })
            .collect())
    }
}

async fn worker(script: &Arc<Script>, settings: BatchSettings) -> Worker<Fake> {
    let script = Arc::clone(script);
    let make = move || {
        script.made.fetch_add(1, Ordering::SeqCst);
        Ok(Fake(Arc::clone(&script)))
    };
    Worker::spawn("fake", WorkerSettings::on_cpu(settings), make)
        .await
        .unwrap()
}

fn settings(max_size: usize, queue: usize) -> BatchSettings {
    BatchSettings {
        max_size,
        measured: false,
        max_wait: Duration::ZERO,
        queue,
    }
}

fn on_cpu(max_size: usize, queue: usize) -> WorkerSettings {
    WorkerSettings::on_cpu(settings(max_size, queue))
}

fn file(stream: &str) -> Requester {
    Requester::new(stream, false)
}

/// Occupies the worker with item 0 until the script lets go.
async fn plug(worker: &Worker<Fake>, script: &Script) -> tokio::task::JoinHandle<Result<u32>> {
    script.hold(true);
    let worker = worker.clone();
    let plug = tokio::spawn(async move { worker.ask(0, file("plug")).await });
    until(|| script.running.load(Ordering::SeqCst) == 1).await;
    plug
}

async fn until(done: impl Fn() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not come to pass within 2 s");
}

#[tokio::test]
async fn batch_is_formed_late_with_live_first_and_streams_in_turn() {
    let script = Script::new();
    let worker = worker(&script, settings(2, 16)).await;
    let plug = plug(&worker, &script).await;
    let asks = [
        (1, file("a")),
        (2, file("a")),
        (3, file("a")),
        (11, file("b")),
        (100, Requester::new("x", true)),
    ];
    let mut asks: Vec<_> = asks
        .into_iter()
        .map(|(item, requester)| worker.ask(item, requester).boxed())
        .collect();
    for ask in &mut asks {
        assert!(poll!(ask).is_pending());
    }
    script.hold(false);
    let answers: Vec<u32> = join_all(asks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(answers, [2, 4, 6, 22, 200]);
    assert_eq!(
        script.batches(),
        [vec![0], vec![100, 1], vec![11, 2], vec![3]]
    );
    assert_eq!(plug.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn dropped_ask_is_never_run_and_its_place_is_free_at_once() {
    let script = Script::new();
    let worker = worker(&script, settings(4, 4)).await;
    let plug = plug(&worker, &script).await;
    let (mut gone, mut stays) = (
        worker.ask(1, file("a")).boxed(),
        worker.ask(2, file("a")).boxed(),
    );
    assert!(poll!(&mut gone).is_pending() && poll!(&mut stays).is_pending());
    assert_eq!(worker.free_and_waiting(), (1, 0));
    drop(gone);
    assert_eq!(worker.free_and_waiting(), (2, 0));
    script.hold(false);
    assert_eq!(stays.await.unwrap(), 4);
    assert_eq!(script.batches(), [vec![0], vec![2]]);
    plug.await.unwrap().unwrap();
    assert_eq!(worker.free_and_waiting(), (4, 0));
}

#[tokio::test]
async fn places_are_bounded_and_who_leaves_the_line_is_never_run() {
    let script = Script::new();
    let worker = worker(&script, settings(1, 2)).await;
    let plug = plug(&worker, &script).await;
    let mut queued = worker.ask(1, file("a")).boxed();
    let mut third = worker.ask(2, file("a")).boxed();
    let mut gone = worker.ask(3, file("a")).boxed();
    let mut live = worker.ask(4, Requester::new("x", true)).boxed();
    for ask in [&mut queued, &mut third, &mut gone, &mut live] {
        assert!(poll!(ask).is_pending());
    }
    assert_eq!(worker.free_and_waiting(), (0, 3));
    drop(gone);
    assert_eq!(worker.free_and_waiting(), (0, 2));
    script.hold(false);
    let (queued, third, live) = tokio::join!(queued, third, live);
    assert_eq!((queued.unwrap(), third.unwrap(), live.unwrap()), (2, 4, 8));
    assert!(
        !script.batches().concat().contains(&3),
        "{:?}",
        script.batches()
    );
    plug.await.unwrap().unwrap();
    assert_eq!(worker.free_and_waiting(), (2, 0));
}

#[tokio::test]
async fn panic_stays_with_the_item_that_causes_it() {
    let script = Script::new();
    let worker = worker(&script, settings(8, 16)).await;
    let plug = plug(&worker, &script).await;
    let items = [1, 2, 3, POISON, 5, REFUSED, 7, 8];
    let mut asks: Vec<_> = items
        .iter()
        .map(|item| worker.ask(*item, file("a")).boxed())
        .collect();
    for ask in &mut asks {
        assert!(poll!(ask).is_pending());
    }
    script.hold(false);
    for (item, answer) in items.iter().zip(join_all(asks).await) {
        match *item {
            POISON => assert!(answer.unwrap_err().message().contains("panicked: poisoned")),
            REFUSED => assert_eq!(answer.unwrap_err().message(), "refused"),
            item => assert_eq!(answer.unwrap(), item * 2),
        }
    }
    // 8, 4, 2 and 1 items panicked; after each the model is made again.
    assert_eq!(script.made.load(Ordering::SeqCst), 5);
    plug.await.unwrap().unwrap();
}

#[tokio::test]
async fn out_of_memory_halves_the_batch_and_it_grows_back() {
    let script = Script::new();
    let worker = worker(&script, settings(8, 16)).await;
    let round = async |expected: &[usize]| {
        script.batches.lock().clear();
        let plug = plug(&worker, &script).await;
        let mut asks: Vec<_> = (1..=8)
            .map(|item| worker.ask(item, file("a")).boxed())
            .collect();
        for ask in &mut asks {
            assert!(poll!(ask).is_pending());
        }
        script.hold(false);
        let answers: Vec<u32> = join_all(asks)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(answers, (1..=8).map(|item| item * 2).collect::<Vec<_>>());
        plug.await.unwrap().unwrap();
        assert_eq!(
            script.batches().iter().map(Vec::len).collect::<Vec<_>>(),
            expected
        );
    };
    *script.fits.lock() = 4;
    round(&[1, 8, 4, 4]).await;
    *script.fits.lock() = usize::MAX;
    round(&[1, 4, 4]).await;
    // Sixty-four full batches of the smaller size bring the larger one back: four have run by now.
    for _ in 0..29 {
        round(&[1, 4, 4]).await;
    }
    round(&[1, 4, 4]).await;
    round(&[1, 8]).await;
    *script.fits.lock() = 0;
    let error = worker.ask(1, file("a")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Overload);
    assert_eq!(script.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn close_answers_who_waits_and_lets_nobody_in() {
    let script = Script::new();
    let worker = worker(&script, settings(1, 2)).await;
    let plug = plug(&worker, &script).await;
    let (mut queued, mut outside) = (
        worker.ask(1, file("a")).boxed(),
        worker.ask(2, file("a")).boxed(),
    );
    assert!(poll!(&mut queued).is_pending() && poll!(&mut outside).is_pending());
    let mut closing = worker.close().boxed();
    assert!(poll!(&mut closing).is_pending(), "a batch still runs");
    assert_eq!(queued.await.unwrap_err().kind(), Kind::Overload);
    assert_eq!(outside.await.unwrap_err().kind(), Kind::Overload);
    script.hold(false);
    closing.await;
    assert_eq!(
        plug.await.unwrap().unwrap(),
        0,
        "the running batch is answered"
    );
    assert_eq!(
        worker.ask(3, file("a")).await.unwrap_err().kind(),
        Kind::Overload
    );
}

#[tokio::test]
async fn thread_ends_with_its_last_handle() {
    let script = Script::new();
    let worker = worker(&script, settings(1, 2)).await;
    let other = worker.clone();
    drop(worker);
    assert_eq!(other.ask(1, file("a")).await.unwrap(), 2);
    drop(other);
    until(|| Arc::strong_count(&script) == 1).await;
}

#[tokio::test]
async fn expired_item_is_skipped() {
    let script = Script::new();
    let worker = worker(&script, settings(4, 4)).await;
    let plug = plug(&worker, &script).await;
    let soon = Requester {
        deadline: Some(Instant::now() + Duration::from_millis(5)),
        ..file("a")
    };
    let mut late = worker.ask(1, soon).boxed();
    assert!(poll!(&mut late).is_pending());
    tokio::time::sleep(Duration::from_millis(10)).await;
    script.hold(false);
    assert_eq!(late.await.unwrap_err().kind(), Kind::Overload);
    plug.await.unwrap().unwrap();
    assert_eq!(script.batches(), [vec![0]]);
}

#[tokio::test]
async fn free_worker_waits_for_a_fuller_batch_but_not_for_more_than_full() {
    let script = Script::new();
    let patient = BatchSettings::new(4, Duration::from_secs(60));
    let full = worker(&script, patient).await;
    join_all((1..=4).map(|item| full.ask(item, file("a")))).await;
    assert_eq!(script.batches(), [vec![1, 2, 3, 4]]);
    let (script, brief) = (
        Script::new(),
        BatchSettings {
            max_wait: Duration::from_millis(20),
            ..patient
        },
    );
    let alone = worker(&script, brief).await;
    let began = Instant::now();
    assert_eq!(alone.ask(1, file("a")).await.unwrap(), 2);
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn model_that_cannot_load_or_settings_that_cannot_work_start_nothing() {
    let failed =
        Worker::<Fake>::spawn("bad", on_cpu(1, 1), || Err(Error::config("no such folder")))
            .await
            .unwrap_err();
    assert_eq!(
        (failed.kind(), failed.message()),
        (Kind::Config, "model bad cannot be loaded: no such folder")
    );
    let panicked = Worker::<Fake>::spawn("bad", on_cpu(1, 1), || panic!("torn file"))
        .await
        .unwrap_err();
    assert_eq!(panicked.kind(), Kind::Model);
    assert!(panicked.message().contains("torn file"));
    for settings in [on_cpu(0, 4), on_cpu(8, 4)] {
        let refused = Worker::<Fake>::spawn("bad", settings, || panic!("not to be made"))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Config);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_on_the_cpu_compute_one_at_a_time_and_equal_keys_share_one() {
    let (script, workers) = (Script::new(), Workers::new());
    let get = async |weights: &str| {
        let key = WorkerKey {
            weights: weights.to_owned(),
            device: "cpu".to_owned(),
            precision: "f32".to_owned(),
            options: String::new(),
        };
        let theirs = Arc::clone(&script);
        let make = move || {
            theirs.made.fetch_add(1, Ordering::SeqCst);
            Ok(Fake(Arc::clone(&theirs)))
        };
        workers
            .get::<Fake, _>(&key, weights, on_cpu(2, 8), make)
            .await
            .unwrap()
    };
    let (one, two, again) = tokio::join!(get("one"), get("two"), get("one"));
    assert_eq!(script.made.load(Ordering::SeqCst), 2);
    let asks = (0..300).map(|n| {
        let worker = [&one, &two, &again][n as usize % 3].clone();
        tokio::spawn(async move { worker.ask(n, file("a")).await.is_ok() })
    });
    join_all(asks).await;
    assert_eq!(script.most_running.load(Ordering::SeqCst), 1);
    workers.close().await;
    assert_eq!(
        one.ask(1, file("a")).await.unwrap_err().kind(),
        Kind::Overload
    );
}

/// Many streams on several threads, a third of the requesters leave at some point, some items
/// panic: every other one gets its own answer and no permit is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_askers_leave_at_any_point() {
    let script = Script::new();
    let worker = worker(&script, settings(8, 12)).await;
    let asks = (1000..2200u32).map(|n| {
        let worker = worker.clone();
        tokio::spawn(async move {
            let item = if n % 97 == 0 { POISON } else { n };
            let ask = worker.ask(item, Requester::new(format!("s{}", n % 9), n % 5 == 0));
            if n % 3 == 0 {
                let patience = Duration::from_micros(u64::from(n * 7919 % 4000));
                return tokio::time::timeout(patience, ask)
                    .await
                    .ok()
                    .map(|answer| (n, item, answer));
            }
            Some((n, item, ask.await))
        })
    });
    let all = tokio::time::timeout(Duration::from_secs(20), join_all(asks))
        .await
        .expect("no deadlock");
    let mut answered = HashSet::new();
    for (n, item, answer) in all.into_iter().filter_map(Result::unwrap) {
        match item {
            POISON => assert_eq!(answer.unwrap_err().kind(), Kind::Model),
            item => assert_eq!(answer.unwrap(), item * 2),
        }
        answered.insert(n);
    }
    assert!(
        (1000..2200)
            .filter(|n| n % 3 != 0)
            .all(|n| answered.contains(&n))
    );
    until(|| worker.free_and_waiting() == (12, 0)).await;
}

/// From a stage to a free worker and back; printed, as it says nothing on a busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trip_time() {
    let worker = worker(&Script::new(), settings(1, 2)).await;
    let mut times = Vec::new();
    for n in 1000..3000 {
        let began = Instant::now();
        worker.ask(n, file("a")).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "round trip: median {:?}, 99th percentile {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}
