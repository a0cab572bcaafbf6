//! The handle of a model's thread.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::{Job, Next, Shared};
use super::runner::Runner;
use super::settings::WorkerSettings;
use super::{Asker, Compute, Model};
use crate::error::{Error, Result};
use crate::tensor::Inference;

/// A model on a thread of its own. A handle: cloning shares it; when the last one falls the thread
/// ends.
pub struct Worker<M: Model>(Arc<Handle<M>>);

struct Handle<M: Model>(Arc<Shared<M>>);

impl<M: Model> Drop for Handle<M> {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl<M: Model> Clone for Worker<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Model> Worker<M> {
    /// Starts a thread, makes the model there and warms it up. `make` is called again after a panic
    /// inside the model, and when the model was put down and is asked again.
    ///
    /// # Errors
    /// What `make` and the warm-up return, model where they panic, config for settings that cannot
    /// work and for weights above the limit.
    pub async fn spawn<F>(name: &str, settings: WorkerSettings, make: F) -> Result<Self>
    where
        F: FnMut() -> Result<M> + Send + 'static,
    {
        settings
            .batch
            .check()
            .map_err(|error| error.context(format_args!("model {name}")))?;
        let shared = Arc::new(Shared::new(name, &settings.place, settings.batch));
        let (ready, loaded) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            // The kernel keeps 15 characters.
            .name(format!("model-{name}").chars().take(15).collect())
            .spawn(move || work(theirs, settings, make, ready))
            .map_err(|error| {
                Error::external(format!("no thread for model {name}")).because(error)
            })?;
        let worker = Self(Arc::new(Handle(shared)));
        loaded.await.map_err(|_| {
            Error::bug(format!("the thread of model {name} ended while it loaded"))
        })??;
        Ok(worker)
    }

    /// The model's answer to `item`. It waits for a place in the queue, for its turn and for the
    /// batch. Dropping the future cancels: an item that waits is taken out at once, one that runs
    /// keeps its place until the worker returns.
    ///
    /// # Errors
    /// Overload where the deadline passed, memory ran out or the worker shuts down; model where the
    /// model refused or panicked on the item.
    pub async fn ask(&self, item: M::Item, asker: Asker) -> Result<M::Answer> {
        let shared = &self.0.0;
        let place = match asker.deadline {
            None => shared.places.reserve(asker.live).await?,
            Some(deadline) => {
                let reserved =
                    tokio::time::timeout_at(deadline.into(), shared.places.reserve(asker.live))
                        .await;
                reserved.map_err(|_| {
                    shared.metrics.expired.increment(1);
                    Error::overload(format!(
                        "model {}: the deadline passed before a place was free",
                        shared.name
                    ))
                })??
            }
        };
        let (answer, answered) = oneshot::channel();
        let number = shared.push(
            &asker,
            Job {
                item,
                answer,
                place,
            },
        )?;
        let mut ticket = Ticket {
            shared,
            asker: &asker,
            number: Some(number),
        };
        let answer = answered.await;
        ticket.number = None;
        answer.unwrap_or_else(|_| {
            Err(Error::bug(format!(
                "the thread of model {} ended with the item",
                shared.name
            )))
        })
    }

    /// Items that wait for it or run, those without a place included.
    pub fn load(&self) -> usize {
        self.0.0.places.taken()
    }

    /// How long its loaded model has had nothing to do; none where it has, or is put down.
    pub fn idle(&self) -> Option<Duration> {
        self.0.0.idle()
    }

    /// Drops the model and gives its memory back, if it has nothing to do; says whether. The next
    /// item finds it loaded anew.
    pub async fn put_down(&self) -> bool {
        self.0.0.put_down().await.is_ok()
    }

    /// Its name, as in the metrics.
    pub fn name(&self) -> &str {
        &self.0.0.name
    }

    /// Lets nobody in any more, answers who waits with an overload, and waits until the running
    /// batch is done and the model is dropped.
    pub async fn close(&self) {
        self.0.0.shut();
        self.0.0.ended.cancelled().await;
    }

    #[cfg(test)]
    pub(super) fn free_and_waiting(&self) -> (usize, usize) {
        self.0.0.places.free_and_waiting()
    }
}

impl<M: Model> fmt::Debug for Worker<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name())
            .field("settings", &self.0.0.settings)
            .finish()
    }
}

/// Takes the item out of the queue when its asker goes.
struct Ticket<'a, M: Model> {
    shared: &'a Shared<M>,
    asker: &'a Asker,
    number: Option<u64>,
}

impl<M: Model> Drop for Ticket<'_, M> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.withdraw(self.asker, number);
        }
    }
}

/// Whatever ends the thread, nobody is left waiting.
struct Ending<M: Model>(Arc<Shared<M>>);

impl<M: Model> Drop for Ending<M> {
    fn drop(&mut self) {
        self.0.shut();
        self.0.ended.cancel();
    }
}

/// The thread. It never builds an autograd graph, and what it allocates is booked as the worker's.
fn work<M, F>(
    shared: Arc<Shared<M>>,
    settings: WorkerSettings,
    make: F,
    ready: oneshot::Sender<Result<()>>,
) where
    M: Model,
    F: FnMut() -> Result<M>,
{
    let _ending = Ending(Arc::clone(&shared));
    let _mode = Inference::begin();
    let compute = settings.compute.clone();
    let mut runner = Runner::new(Arc::clone(&shared), settings, make);
    let account = runner.memory().account();
    let _entered = account.enter();
    let began = Instant::now();
    let loaded = runner.load().and_then(|()| {
        let _permit = compute.as_ref().map(Compute::acquire);
        runner.warm_up()
    });
    let failed = loaded.is_err();
    if !failed {
        let (seconds, mib) = (began.elapsed().as_secs_f64(), runner.memory().held() >> 20);
        tracing::info!(model = %shared.name, seconds, mib, "model is loaded and warm");
    }
    if ready.send(loaded).is_err() || failed {
        return;
    }
    loop {
        match shared.next(runner.limit(), compute.as_ref()) {
            Next::Batch(jobs, permit) => {
                runner.process(jobs);
                drop(permit);
            }
            Next::PutDown(asked) => {
                runner.put_down();
                for done in asked {
                    // Who has gone needs no answer.
                    let _ = done.send(());
                }
            }
            Next::End => return,
        }
    }
}
