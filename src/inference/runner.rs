//! Runs batches on the model and keeps what goes wrong small: a batch that runs out of memory is
//! halved, one that panics or is refused is split until the item that causes it stands alone. A
//! model that is unloaded is made again for the next batch.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Model;
use super::batch_size::{MeasuredBatch, measure};
use super::memory::WorkerMemory;
use super::queue::{Job, Shared};
use super::settings::WorkerSettings;
use crate::error::{Error, Kind, Result};
use crate::tensor;

/// Full batches without trouble before a larger one is tried again, at first and at most: each
/// failure doubles it.
const FIRST_BATCHES_TO_GROW: u32 = 32;
const MOST_BATCHES_TO_GROW: u32 = 1024;

/// The most items a batch of a model whose batches cannot be measured, as it has no item to try.
const UNMEASURED_MAX_SIZE: usize = 16;

/// A batch that took this long is not run a second time to measure it.
const LONG_BATCH: Duration = Duration::from_millis(500);

pub(super) struct Runner<M: Model, F> {
    shared: Arc<Shared<M>>,
    settings: WorkerSettings,
    memory: WorkerMemory,
    make: F,
    model: Option<M>,
    /// The most items a batch while memory is enough.
    max_batch: usize,
    limit: usize,
    batches_since_oom: u32,
    batches_to_grow: u32,
}

/// How a call of the model ended.
enum RunOutcome<A> {
    Answered(Vec<Result<A>>),
    Failed(Error),
    OutOfMemory,
    Panicked(String),
}

impl<M: Model, F: FnMut() -> Result<M>> Runner<M, F> {
    pub fn new(shared: Arc<Shared<M>>, settings: WorkerSettings, make: F) -> Self {
        let max_batch = settings.batch.max_size;
        let memory = WorkerMemory::new(settings.device, settings.memory_limit);
        let mut runner = Self {
            shared,
            settings,
            memory,
            make,
            model: None,
            max_batch,
            limit: max_batch,
            batches_since_oom: 0,
            batches_to_grow: FIRST_BATCHES_TO_GROW,
        };
        runner.set_max_batch(max_batch);
        runner
    }

    /// The most items a batch may have now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What the worker holds.
    pub fn memory(&self) -> &WorkerMemory {
        &self.memory
    }

    /// Makes the model.
    pub fn load(&mut self) -> Result<()> {
        self.memory.begin_loading();
        let made = catch_unwind(AssertUnwindSafe(&mut self.make))
            .unwrap_or_else(|panic| Err(Error::model(panic_text(&*panic))));
        let fits = made.and_then(|model| self.memory.loaded().map(|()| model));
        self.model = Some(fits.map_err(|error| {
            error.context(format_args!("model {} cannot be loaded", self.shared.name))
        })?);
        self.shared.loaded(true);
        self.shared.metrics.memory.set(self.memory.held() as f64);
        Ok(())
    }

    /// Runs the model once for nobody, and where its batches are to be measured, does that or
    /// remembers it.
    pub fn warm_up(&mut self) -> Result<()> {
        let Some(model) = &mut self.model else {
            return Ok(());
        };
        let warm = catch_unwind(AssertUnwindSafe(|| model.warm_up()))
            .unwrap_or_else(|panic| Err(Error::model(panic_text(&*panic))));
        let warm = warm.and_then(|()| {
            if self.settings.batch.measured {
                self.measure()
            } else {
                Ok(())
            }
        });
        self.shared.metrics.memory.set(self.memory.held() as f64);
        warm.map_err(|error| error.context(format_args!("model {} does not run", self.shared.name)))
    }

    /// Drops the model until the next batch, and gives the memory back.
    pub fn unload(&mut self) {
        let dropped = self
            .model
            .take()
            .is_none_or(|model| catch_unwind(AssertUnwindSafe(|| drop(model))).is_ok());
        if dropped {
            self.memory.unloaded();
        } else {
            self.shared.metrics.panics.increment(1);
        }
        tensor::free_cached(self.settings.device);
        self.shared.loaded(false);
        self.shared.metrics.unloads.increment(1);
        self.shared.metrics.memory.set(self.memory.held() as f64);
        tracing::info!(model = %self.shared.name, device = %self.settings.device_label, "model is unloaded until it is asked again");
    }

    /// Finds the size of batches that the model answers the most items a second with.
    fn measure(&mut self) -> Result<()> {
        let max_batch = self.settings.batch.max_size;
        let name = Arc::clone(&self.shared.name);
        let Some(sample) = self.model.as_ref().and_then(Model::sample) else {
            tracing::warn!(model = %name, max_size = UNMEASURED_MAX_SIZE.min(max_batch), "the model has no item to measure its batches with");
            self.set_max_batch(UNMEASURED_MAX_SIZE.min(max_batch));
            return Ok(());
        };
        let limit = self.settings.memory_limit;
        let shape = M::shape(&sample);
        let entry = self
            .settings
            .batch_sizes
            .as_ref()
            .map(|kept| kept.entry(self.settings.device, &shape, limit, max_batch));
        if let Some((size, entry)) = entry
            .as_ref()
            .and_then(|entry| Some((entry.read()?, entry)))
        {
            tracing::info!(model = %name, max_size = size, file = %entry.path().display(), "batch size is known from an earlier start");
            self.set_max_batch(size.min(max_batch));
            return Ok(());
        }
        self.memory.begin_measuring();
        let measured = measure(max_batch, |size| self.time(size));
        self.memory.measured();
        let measured = measured?;
        let curve: Vec<String> = measured
            .curve
            .iter()
            .map(|(size, rate)| format!("{size}: {rate:.1}/s"))
            .collect();
        tracing::info!(model = %name, max_size = measured.max_size, end = measured.end.as_str(), curve = curve.join(", "), "batch size is measured");
        if let Some(Err(error)) = entry.map(|entry| entry.write(&measured)) {
            tracing::warn!(model = %name, %error, "the measured batch size is not kept");
        }
        let MeasuredBatch { max_size, .. } = measured;
        self.set_max_batch(max_size);
        Ok(())
    }

    /// The time of a batch of `size`, the better of two unless it is long; none where memory runs
    /// out.
    fn time(&mut self, size: usize) -> Result<Option<Duration>> {
        let items: Vec<M::Item> = (0..size)
            .filter_map(|_| self.model.as_ref().and_then(Model::sample))
            .collect();
        let items: Vec<&M::Item> = items.iter().collect();
        let mut best = None;
        for _ in 0..2 {
            let began = Instant::now();
            match self.call(&items, &|_| false) {
                RunOutcome::Answered(answers) => answers
                    .into_iter()
                    .try_for_each(|answer| answer.map(drop))?,
                RunOutcome::Failed(error) => return Err(error),
                RunOutcome::Panicked(text) => {
                    return Err(Error::model(format!("panicked: {text}")));
                }
                RunOutcome::OutOfMemory => {
                    self.free();
                    return Ok(None);
                }
            }
            let time = began.elapsed();
            best = Some(best.map_or(time, |best: Duration| best.min(time)));
            if self.memory.is_over() {
                self.free();
                return Ok(None);
            }
            if time > LONG_BATCH {
                break;
            }
        }
        Ok(best)
    }

    /// Answers every job of a batch.
    pub fn process(&mut self, jobs: Vec<Job<M>>) {
        let mut groups = vec![jobs];
        while let Some(mut jobs) = groups.pop() {
            jobs.retain(|job| {
                let cancelled = job.is_cancelled();
                self.shared
                    .metrics
                    .cancelled
                    .increment(u64::from(cancelled));
                !cancelled
            });
            if jobs.is_empty() {
                continue;
            }
            match self.run(&jobs) {
                RunOutcome::Answered(answers) if answers.len() == jobs.len() => {
                    if self.memory.is_over() {
                        self.on_oom(jobs.len())
                    } else {
                        self.on_success(jobs.len())
                    }
                    jobs.into_iter()
                        .zip(answers)
                        .for_each(|(job, answer)| job.finish(answer, &self.shared.metrics));
                }
                RunOutcome::Answered(answers) => {
                    let error = Error::bug(format!(
                        "model {} gave {} answers to {} items",
                        self.shared.name,
                        answers.len(),
                        jobs.len()
                    ));
                    self.refuse(jobs, &error);
                }
                RunOutcome::OutOfMemory => {
                    self.on_oom(jobs.len());
                    let error = Error::overload(format!(
                        "model {} runs out of memory on a single item",
                        self.shared.name
                    ));
                    self.split(
                        jobs,
                        &error.hint("make its input smaller, or free memory on its device"),
                        &mut groups,
                    );
                }
                RunOutcome::Panicked(text) => {
                    self.shared.metrics.panics.increment(1);
                    self.model = None;
                    let error =
                        Error::model(format!("model {} panicked: {text}", self.shared.name));
                    self.split(jobs, &error, &mut groups);
                }
                RunOutcome::Failed(error) if error.kind() == Kind::Model => {
                    self.split(jobs, &error, &mut groups)
                }
                RunOutcome::Failed(error) => self.refuse(jobs, &error),
            }
        }
    }

    fn run(&mut self, jobs: &[Job<M>]) -> RunOutcome<M::Answer> {
        // After a panic the model may be half changed, and one that was unloaded is gone: it is
        // made again.
        if self.model.is_none() {
            let began = Instant::now();
            if let Err(error) = self.load() {
                return RunOutcome::Failed(Error::new(
                    if error.kind() == Kind::Model {
                        Kind::External
                    } else {
                        error.kind()
                    },
                    error.to_string(),
                ));
            }
            tracing::info!(model = %self.shared.name, seconds = began.elapsed().as_secs_f64(), "model is loaded again");
        }
        let items: Vec<&M::Item> = jobs.iter().map(|job| &job.item).collect();
        let cancelled = |at: usize| jobs.get(at).is_some_and(Job::is_cancelled);
        let metrics = &self.shared.metrics;
        metrics.batch_size.record(jobs.len() as f64);
        metrics
            .fill
            .record(jobs.len() as f64 / self.max_batch as f64);
        let began = Instant::now();
        let outcome = self.call(&items, &cancelled);
        let metrics = &self.shared.metrics;
        metrics.run_seconds.record(began.elapsed().as_secs_f64());
        metrics.peak.set(self.memory.peak() as f64);
        metrics.memory.set(self.memory.held() as f64);
        outcome
    }

    fn call(
        &mut self,
        items: &[&M::Item],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> RunOutcome<M::Answer> {
        let Some(model) = &mut self.model else {
            return RunOutcome::Failed(Error::bug("a loaded model is not there"));
        };
        self.memory.begin_batch();
        match catch_unwind(AssertUnwindSafe(|| model.run(items, cancelled))) {
            Ok(Ok(answers)) => RunOutcome::Answered(answers),
            Ok(Err(error)) if tensor::is_out_of_memory(&error.to_string()) => {
                RunOutcome::OutOfMemory
            }
            Ok(Err(error)) => RunOutcome::Failed(error),
            Err(panic) => match panic_text(&*panic) {
                // tch's operations panic with the message that libtorch threw.
                text if tensor::is_out_of_memory(&text) => RunOutcome::OutOfMemory,
                text => RunOutcome::Panicked(text),
            },
        }
    }

    /// The two halves are tried on their own; a single job gets the error.
    fn split(&self, mut jobs: Vec<Job<M>>, error: &Error, groups: &mut Vec<Vec<Job<M>>>) {
        if jobs.len() == 1 {
            return self.refuse(jobs, error);
        }
        let second = jobs.split_off(jobs.len() / 2);
        groups.push(second);
        groups.push(jobs);
    }

    fn refuse(&self, jobs: Vec<Job<M>>, error: &Error) {
        jobs.into_iter()
            .for_each(|job| job.finish(Err(error.clone()), &self.shared.metrics));
    }

    fn on_oom(&mut self, size: usize) {
        self.shared.metrics.oom.increment(1);
        self.batches_since_oom = 0;
        self.batches_to_grow = (self.batches_to_grow * 2).min(MOST_BATCHES_TO_GROW);
        self.set_limit((size / 2).max(1));
        tracing::warn!(model = %self.shared.name, items = size, limit = self.limit, "a batch ran out of memory, smaller ones are run");
        self.free();
    }

    /// Gives back what the model and the device's allocator keep for later.
    fn free(&mut self) {
        if let Some(model) = &mut self.model {
            let given_back = catch_unwind(AssertUnwindSafe(|| model.out_of_memory()));
            if given_back.is_err() {
                self.model = None;
            }
        }
        tensor::free_cached(self.settings.device);
    }

    fn on_success(&mut self, size: usize) {
        if self.limit == self.max_batch || size < self.limit {
            return;
        }
        self.batches_since_oom += 1;
        if self.batches_since_oom >= self.batches_to_grow {
            self.batches_since_oom = 0;
            self.set_limit((self.limit * 2).min(self.max_batch));
            tracing::info!(model = %self.shared.name, limit = self.limit, "larger batches are tried again");
        }
    }

    /// The most items a batch from here on.
    fn set_max_batch(&mut self, max_batch: usize) {
        self.max_batch = max_batch;
        self.shared.metrics.most.set(max_batch as f64);
        self.set_limit(max_batch);
    }

    fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shared.metrics.limit.set(limit as f64);
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
