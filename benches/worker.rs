//! From a task to a free worker and back: how long a stage waits for a model that does nothing. The peer is the least that does the same,
//! a bounded tokio channel to an OS thread and a oneshot back.

mod report;

use std::time::{Duration, Instant};

use opusflow::Result;
use opusflow::inference::{Asker, BatchSettings, Compute, Model, Worker, WorkerSettings};
use opusflow::telemetry::Exporter;
use tokio::sync::{mpsc, oneshot};

const WARM: usize = 5_000;
const TRIPS: usize = 50_000;

struct Echo;

impl Model for Echo {
    type Item = u64;
    type Answer = u64;

    fn run(&mut self, items: &[&u64], _cancelled: &dyn Fn(usize) -> bool) -> Result<Vec<Result<u64>>> {
        Ok(items.iter().map(|item| Ok(**item)).collect())
    }
}

type Question = (u64, oneshot::Sender<u64>);

fn thread() -> mpsc::Sender<Question> {
    let (ask, mut questions) = mpsc::channel::<Question>(2);
    std::thread::spawn(move || {
        while let Some((item, answer)) = questions.blocking_recv() {
            answer.send(item).expect("the asker waits");
        }
    });
    ask
}

fn figures(name: &str, round: usize, mut trips: Vec<Duration>) {
    let mut trips = trips.split_off(WARM);
    trips.sort();
    let micros = |at: usize| trips[at].as_secs_f64() * 1e6;
    report::figure("worker", &format!("{name}_median"), round, micros(TRIPS / 2), "us");
    report::figure("worker", &format!("{name}_p99"), round, micros(TRIPS * 99 / 100), "us");
}

async fn worker(round: usize) {
    let batch = BatchSettings::new(1, Duration::ZERO);
    let settings = WorkerSettings { compute: Some(Compute::new()), ..WorkerSettings::on_cpu(batch) };
    let worker = Worker::spawn("echo", settings, || Ok(Echo)).await.expect("it starts");
    let asker = Asker::new("bench", false);
    let mut trips = Vec::with_capacity(WARM + TRIPS);
    for item in 0..(WARM + TRIPS) as u64 {
        let began = Instant::now();
        assert_eq!(worker.ask(item, asker.clone()).await.expect("it answers"), item);
        trips.push(began.elapsed());
    }
    worker.close().await;
    figures("opusflow", round, trips);
}

async fn channels(round: usize) {
    let ask = thread();
    let mut trips = Vec::with_capacity(WARM + TRIPS);
    for item in 0..(WARM + TRIPS) as u64 {
        let began = Instant::now();
        let (answer, answered) = oneshot::channel();
        ask.send((item, answer)).await.expect("the thread waits");
        assert_eq!(answered.await.expect("it answers"), item);
        trips.push(began.elapsed());
    }
    figures("tokio_channels", round, trips);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
    let all = runtime.spawn(async {
        Exporter::install(None).expect("the only recorder");
        for round in report::rounds() {
            worker(round).await;
            channels(round).await;
        }
    });
    runtime.block_on(all).expect("it ends");
}
