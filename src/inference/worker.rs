//! The handle of a model's thread.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::queue::{Job, Next, Shared};
use super::runner::Runner;
use super::settings::WorkerSettings;
use super::{ComputeLock, Model, Requester};
use crate::error::{Error, Result};
use crate::tensor::Inference;

/// A model on a thread of its own. A handle: cloning shares it; when the last one is dropped the
/// thread ends.
pub struct Worker<M: Model>(Arc<Handle<M>>);

struct Handle<M: Model>(Arc<Shared<M>>);

impl<M: Model> Drop for Handle<M> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<M: Model> Clone for Worker<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Model> Worker<M> {
    /// Starts a thread, makes the model there and warms it up. `make` is called again after a panic
    /// inside the model, and when the model was unloaded and is asked again.
    ///
    /// # Errors
    /// What `make` and the warm-up return, model where they panic, config for settings that cannot
    /// run_thread and for weights above the limit.
    pub async fn spawn<F>(name: &str, settings: WorkerSettings, make: F) -> Result<Self>
    where
        F: FnMut() -> Result<M> + Send + 'static,
    {
        settings
            .batch
            .check()
            .map_err(|error| error.context(format_args!("model {name}")))?;
        let shared = Arc::new(Shared::new(name, &settings.device_label, settings.batch));
        let (ready, loaded) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            // The kernel keeps 15 characters.
            .name(format!("model-{name}").chars().take(15).collect())
            .spawn(move || run_thread(theirs, settings, make, ready))
            .map_err(|error| {
                Error::external(format!("no thread for model {name}")).because(error)
            })?;
        let worker = Self(Arc::new(Handle(shared)));
        loaded.await.map_err(|_| {
            Error::bug(format!("the thread of model {name} ended while it loaded"))
        })??;
        Ok(worker)
    }

    /// The model's answer to `item`. It waits for a permit in the queue, for its turn and for the
    /// batch. Dropping the future cancels: an item that waits is taken out at once, one that runs
    /// keeps its permit until the worker returns.
    ///
    /// # Errors
    /// Overload where the deadline passed, memory ran out or the worker shuts down; model where the
    /// model refused or panicked on the item.
    pub async fn ask(&self, item: M::Item, requester: Requester) -> Result<M::Answer> {
        let shared = &self.0.0;
        let permit = match requester.deadline {
            None => shared.permits.reserve(requester.live).await?,
            Some(deadline) => {
                let reserved = tokio::time::timeout_at(
                    deadline.into(),
                    shared.permits.reserve(requester.live),
                )
                .await;
                reserved.map_err(|_| {
                    shared.metrics.expired.increment(1);
                    Error::overload(format!(
                        "model {}: the deadline passed before a permit was free",
                        shared.name
                    ))
                })??
            }
        };
        let (answer, answered) = oneshot::channel();
        let number = shared.push(
            &requester,
            Job {
                item,
                answer,
                permit,
            },
        )?;
        let mut guard = WithdrawOnDrop {
            shared,
            requester: &requester,
            number: Some(number),
        };
        let answer = answered.await;
        guard.number = None;
        answer.unwrap_or_else(|_| {
            Err(Error::bug(format!(
                "the thread of model {} ended with the item",
                shared.name
            )))
        })
    }

    /// Items that wait for it or run, those without a permit included.
    pub fn load(&self) -> usize {
        self.0.0.permits.taken()
    }

    /// How long its loaded model has had nothing to do; none where it has, or is unloaded.
    pub fn idle(&self) -> Option<Duration> {
        self.0.0.idle()
    }

    /// Drops the model and gives its memory back, if it has nothing to do; says whether. The next
    /// item finds it loaded again.
    pub async fn unload(&self) -> bool {
        self.0.0.unload().await.is_ok()
    }

    /// Its name, as in the metrics.
    pub fn name(&self) -> &str {
        &self.0.0.name
    }

    /// Lets nobody in any more, answers who waits with an overload, and waits until the running
    /// batch is done and the model is dropped.
    pub async fn close(&self) {
        self.0.0.close();
        self.0.0.ended.cancelled().await;
    }

    #[cfg(test)]
    pub(super) fn free_and_waiting(&self) -> (usize, usize) {
        self.0.0.permits.free_and_waiting()
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

/// Takes the item out of the queue when its requester goes.
struct WithdrawOnDrop<'a, M: Model> {
    shared: &'a Shared<M>,
    requester: &'a Requester,
    number: Option<u64>,
}

impl<M: Model> Drop for WithdrawOnDrop<'_, M> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.withdraw(self.requester, number);
        }
    }
}

/// Whatever ends the thread, nobody is left waiting.
struct CloseOnExit<M: Model>(Arc<Shared<M>>);

impl<M: Model> Drop for CloseOnExit<M> {
    fn drop(&mut self) {
        self.0.close();
        self.0.ended.cancel();
    }
}

/// The thread. It never builds an autograd graph, and what it allocates is booked as the worker's.
fn run_thread<M, F>(
    shared: Arc<Shared<M>>,
    settings: WorkerSettings,
    make: F,
    ready: oneshot::Sender<Result<()>>,
) where
    M: Model,
    F: FnMut() -> Result<M>,
{
    let _close = CloseOnExit(Arc::clone(&shared));
    let _mode = Inference::begin();
    let compute = settings.compute.clone();
    let mut runner = Runner::new(Arc::clone(&shared), settings, make);
    let account = runner.memory().account();
    let _entered = account.enter();
    let began = Instant::now();
    let loaded = runner.load().and_then(|()| {
        let _permit = compute.as_ref().map(ComputeLock::acquire);
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
            Next::Unload(asked) => {
                runner.unload();
                for done in asked {
                    // Who has gone needs no answer.
                    let _ = done.send(());
                }
            }
            Next::End => return,
        }
    }
}
