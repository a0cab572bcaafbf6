//! From a task to a free worker and back: how long a stage waits for a model that does nothing, one
//! item straight after the other, and with a rest between them in which the worker's thread falls
//! asleep. The peer is the least that does the same, a bounded tokio channel to an OS thread and a
//! oneshot back.

mod report;

use std::time::{Duration, Instant};

use opusflow::Result;
use opusflow::inference::{BatchSettings, ComputeLock, Model, Requester, Worker, WorkerSettings};
use opusflow::telemetry::Exporter;
use tokio::sync::{mpsc, oneshot};

const WARM: usize = 5_000;
const TRIPS: usize = 50_000;

/// Trips with a rest before each, and the rest.
const RESTED: usize = 2_000;
const REST: Duration = Duration::from_millis(2);

struct Echo;

impl Model for Echo {
    type Item = u64;
    type Answer = u64;

    fn run(
        &mut self,
        items: &[&u64],
        _cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Result<u64>>> {
        Ok(items.iter().map(|item| Ok(**item)).collect())
    }
}

type Question = (u64, oneshot::Sender<u64>);

fn thread() -> mpsc::Sender<Question> {
    let (ask, mut questions) = mpsc::channel::<Question>(2);
    std::thread::spawn(move || {
        while let Some((item, answer)) = questions.blocking_recv() {
            answer.send(item).expect("the requester waits");
        }
    });
    ask
}

/// The times of trips; `trip` is told the number of each.
async fn travel<T: Future<Output = ()>>(name: &str, round: usize, trip: impl Fn(u64) -> T) {
    let mut trips = Vec::with_capacity(WARM + TRIPS);
    for item in 0..(WARM + TRIPS) as u64 {
        let began = Instant::now();
        trip(item).await;
        trips.push(began.elapsed());
    }
    figures(name, round, trips.split_off(WARM));
    let mut rested = Vec::with_capacity(RESTED);
    for item in 0..RESTED as u64 {
        tokio::time::sleep(REST).await;
        let began = Instant::now();
        trip(item).await;
        rested.push(began.elapsed());
    }
    figures(&format!("{name}_rested"), round, rested);
}

fn figures(name: &str, round: usize, mut trips: Vec<Duration>) {
    trips.sort();
    let micros = |share: usize| trips[trips.len() * share / 100].as_secs_f64() * 1e6;
    report::figure("worker", &format!("{name}_median"), round, micros(50), "us");
    report::figure("worker", &format!("{name}_p99"), round, micros(99), "us");
}

async fn worker(round: usize) {
    let batch = BatchSettings::new(1, Duration::ZERO);
    let settings = WorkerSettings {
        compute: Some(ComputeLock::new()),
        ..WorkerSettings::on_cpu(batch)
    };
    let worker = Worker::spawn("echo", settings, || Ok(Echo))
        .await
        .expect("it starts");
    let requester = Requester::new("bench", false);
    let (to, by) = (&worker, &requester);
    let trip =
        |item| async move { assert_eq!(to.ask(item, by.clone()).await.expect("it answers"), item) };
    travel("opusflow", round, trip).await;
    worker.close().await;
}

async fn channels(round: usize) {
    let ask = thread();
    let ask = &ask;
    let trip = |item| async move {
        let (answer, answered) = oneshot::channel();
        ask.send((item, answer)).await.expect("the thread waits");
        assert_eq!(answered.await.expect("it answers"), item);
    };
    travel("tokio_channels", round, trip).await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let all = runtime.spawn(async {
        Exporter::install(None).expect("the only recorder");
        for round in report::rounds() {
            worker(round).await;
            channels(round).await;
        }
    });
    runtime.block_on(all).expect("it ends");
}
