//! Drives a session to its end: progress while the stream lasts, then the drain, the `ended` event
//! and the end of the sinks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::delivery::Delivered;
use super::feed::{Events, FeedCounts};
use crate::packet::{Balance, Event, Stream};
use crate::stage::Ledger;
use crate::{Error, Result};

/// How often those that hold up a shutdown are named.
const LAGGARD_INTERVAL: Duration = Duration::from_secs(5);

/// How long what was forced to end may take to end by itself.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Debug, Clone)]
pub struct SessionReport {
    /// The stream's id.
    pub stream: Arc<str>,
    /// Why it ended.
    pub reason: String,
    /// The ledger's terms by view.
    pub ledger: BTreeMap<String, Balance>,
    /// Records delivered, by destination.
    pub records: BTreeMap<String, u64>,
    /// Frames that the decoder could not give.
    pub lost_in_decoding: u64,
    /// What went wrong in sinks at the end.
    pub errors: Vec<Error>,
    /// Wall clock from start to end.
    pub elapsed: Duration,
}

/// The tasks of a session, by stage, and what its sinks count.
#[derive(Default)]
pub(crate) struct Tasks {
    pub lanes: Vec<(String, JoinHandle<()>)>,
    pub deliveries: Vec<(String, JoinHandle<Result<()>>)>,
    pub delivered: Delivered,
}

/// What drives a session to its end.
pub(crate) struct Driver {
    pub stream: Arc<Stream>,
    pub ledger: Arc<Ledger>,
    pub tasks: Tasks,
    pub events: Arc<Events>,
    pub ended: oneshot::Receiver<String>,
    pub counts: Arc<FeedCounts>,
    pub progress: Duration,
    pub force: CancellationToken,
    pub began: Instant,
}

impl Driver {
    /// Waits for the stream's end, drains, emits the `ended` event and closes the sinks.
    pub async fn run(mut self, stop: CancellationToken) -> SessionReport {
        let reason = self.until_ended().await;
        let laggards = tokio::spawn(name_laggards(
            self.unfinished(),
            Arc::clone(&self.stream.id),
            stop,
        ));
        let mut errors = Vec::new();
        // Lanes end when their inputs have closed and are read, one after the other down the graph.
        for (stage, lane) in self.tasks.lanes.drain(..) {
            if let Err(error) = lane.await {
                errors.push(Error::bug(format!(
                    "the lane of stage `{stage}` ended: {error}"
                )));
            }
        }
        // Sinks still deliver: their queues of events and dead letters are open. Only when every
        // receipt has settled are the ledger and the counts those of the `ended` event.
        self.until_settled().await;
        let (ledger, records) = (self.ledger.balances(), self.tasks.delivered.lock().clone());
        self.events
            .end(Event::Ended {
                reason: reason.clone(),
                ledger,
                records,
            })
            .await;
        // That was the last event: with it the last queue of each sink has closed.
        for (stage, delivery) in self.tasks.deliveries.drain(..) {
            match delivery.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => errors.push(error),
                Err(error) => errors.push(Error::bug(format!(
                    "the delivery of stage `{stage}` ended: {error}"
                ))),
            }
        }
        laggards.abort();
        SessionReport {
            stream: Arc::clone(&self.stream.id),
            reason,
            ledger: self.ledger.balances(),
            records: self.tasks.delivered.lock().clone(),
            lost_in_decoding: self.counts.lost.load(Ordering::Relaxed),
            errors,
            elapsed: self.began.elapsed(),
        }
    }

    /// Tells of progress until the source has ended the stream.
    async fn until_ended(&mut self) -> String {
        let mut ticks = interval(self.progress.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            tokio::select! {
                reason = &mut self.ended => return reason.unwrap_or_else(|_| self.gone()),
                () = self.force.cancelled() => {
                    let ended = tokio::time::timeout(2 * GRACE, &mut self.ended).await;
                    return ended.ok().and_then(std::result::Result::ok).unwrap_or_else(|| self.gone());
                }
                _ = ticks.tick() => {
                    let complete = self.ledger.complete();
                    if complete > reported {
                        reported = complete;
                        let (epoch, complete) = complete.unwrap_or_default();
                        self.events.progress(epoch, complete).await;
                    }
                }
            }
        }
    }

    fn gone(&self) -> String {
        if self.force.is_cancelled() {
            "shutdown".to_owned()
        } else {
            "the source went away".to_owned()
        }
    }

    /// Waits until every frame has settled, and says so while it waits long.
    async fn until_settled(&self) {
        let settled = async {
            while tokio::time::timeout(LAGGARD_INTERVAL, self.ledger.drained())
                .await
                .is_err()
            {
                let in_flight: u64 = self
                    .ledger
                    .balances()
                    .values()
                    .map(|balance| balance.in_flight)
                    .sum();
                tracing::warn!(stream = %self.stream.id, in_flight, "frames are still on their \
                                                                     way to the sinks");
            }
        };
        self.force.run_until_cancelled(settled).await;
    }

    fn unfinished(&self) -> Vec<(String, tokio::task::AbortHandle)> {
        let lanes = self
            .tasks
            .lanes
            .iter()
            .map(|(stage, task)| (stage.clone(), task.abort_handle()));
        lanes
            .chain(
                self.tasks
                    .deliveries
                    .iter()
                    .map(|(stage, task)| (stage.clone(), task.abort_handle())),
            )
            .collect()
    }
}

/// Once the shutdown has begun, says every few seconds which stages still work.
async fn name_laggards(
    tasks: Vec<(String, tokio::task::AbortHandle)>,
    stream: Arc<str>,
    stop: CancellationToken,
) {
    stop.cancelled().await;
    loop {
        tokio::time::sleep(LAGGARD_INTERVAL).await;
        let stages: Vec<_> = tasks
            .iter()
            .filter(|(_, task)| !task.is_finished())
            .map(|(stage, _)| stage.as_str())
            .collect();
        if !stages.is_empty() {
            tracing::warn!(stream = %stream, stages = stages.join(", "), "still draining");
        }
    }
}
