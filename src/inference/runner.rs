//! Runs batches on the model and keeps what goes wrong small: a batch that runs out of memory is halved, one that panics or is refused is
//! split until the item that causes it stands alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Model;
use super::batch::{Job, Shared};
use crate::error::{Error, Kind, Result};

/// Full batches without trouble before a larger one is tried again, at first and at most: each failure doubles it.
const PATIENCE: u32 = 32;
const LONGEST_PATIENCE: u32 = 1024;

pub(super) struct Runner<M: Model, F> {
    shared: Arc<Shared<M>>,
    make: F,
    model: Option<M>,
    limit: usize,
    calm: u32,
    patience: u32,
}

/// How a call of the model ended.
enum Ran<A> {
    Answered(Vec<Result<A>>),
    Failed(Error),
    OutOfMemory,
    Panicked(String),
}

impl<M: Model, F: FnMut() -> Result<M>> Runner<M, F> {
    pub fn new(shared: Arc<Shared<M>>, make: F) -> Self {
        let limit = shared.settings.max_size;
        shared.metrics.limit.set(limit as f64);
        Self { shared, make, model: None, limit, calm: 0, patience: PATIENCE }
    }

    /// The most items a batch may have now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Makes the model.
    pub fn load(&mut self) -> Result<()> {
        let made = catch_unwind(AssertUnwindSafe(&mut self.make)).unwrap_or_else(|panic| Err(Error::model(panic_text(&*panic))));
        self.model = Some(made.map_err(|error| error.context(format_args!("model {} cannot be loaded", self.shared.name)))?);
        Ok(())
    }

    /// Runs the model once for nobody.
    pub fn warm_up(&mut self) -> Result<()> {
        let Some(model) = &mut self.model else { return Ok(()) };
        let warm = catch_unwind(AssertUnwindSafe(|| model.warm_up())).unwrap_or_else(|panic| Err(Error::model(panic_text(&*panic))));
        warm.map_err(|error| error.context(format_args!("model {} does not run", self.shared.name)))
    }

    /// Answers every job of a batch.
    pub fn process(&mut self, jobs: Vec<Job<M>>) {
        let mut groups = vec![jobs];
        while let Some(mut jobs) = groups.pop() {
            jobs.retain(|job| {
                let cancelled = job.is_cancelled();
                self.shared.metrics.cancelled.increment(u64::from(cancelled));
                !cancelled
            });
            if jobs.is_empty() {
                continue;
            }
            match self.run(&jobs) {
                Ran::Answered(answers) if answers.len() == jobs.len() => {
                    self.went_well(jobs.len());
                    jobs.into_iter().zip(answers).for_each(|(job, answer)| job.finish(answer, &self.shared.metrics));
                }
                Ran::Answered(answers) => {
                    let error = Error::bug(format!("model {} gave {} answers to {} items", self.shared.name, answers.len(), jobs.len()));
                    self.refuse(jobs, &error);
                }
                Ran::OutOfMemory => {
                    self.ran_out(jobs.len());
                    let error = Error::overload(format!("model {} runs out of memory on a single item", self.shared.name));
                    self.split(jobs, &error.hint("make its input smaller, or free memory on its device"), &mut groups);
                }
                Ran::Panicked(text) => {
                    self.shared.metrics.panics.increment(1);
                    self.model = None;
                    let error = Error::model(format!("model {} panicked: {text}", self.shared.name));
                    self.split(jobs, &error, &mut groups);
                }
                Ran::Failed(error) if error.kind() == Kind::Model => self.split(jobs, &error, &mut groups),
                Ran::Failed(error) => self.refuse(jobs, &error),
            }
        }
    }

    fn run(&mut self, jobs: &[Job<M>]) -> Ran<M::Answer> {
        // After a panic the model may be half changed: it is made anew.
        if self.model.is_none()
            && let Err(error) = self.load()
        {
            return Ran::Failed(Error::new(if error.kind() == Kind::Model { Kind::External } else { error.kind() }, error.to_string()));
        }
        let Some(model) = &mut self.model else { return Ran::Failed(Error::bug("a loaded model is not there")) };
        let items: Vec<&M::Item> = jobs.iter().map(|job| &job.item).collect();
        let cancelled = |at: usize| jobs.get(at).is_some_and(Job::is_cancelled);
        let metrics = &self.shared.metrics;
        metrics.batch_size.record(jobs.len() as f64);
        let began = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| model.run(&items, &cancelled)));
        metrics.run_seconds.record(began.elapsed().as_secs_f64());
        match ran {
            Ok(Ok(answers)) => Ran::Answered(answers),
            Ok(Err(error)) if is_out_of_memory(&error.to_string()) => Ran::OutOfMemory,
            Ok(Err(error)) => Ran::Failed(error),
            Err(panic) => match panic_text(&*panic) {
                // tch's operations panic with the message that libtorch threw.
                text if is_out_of_memory(&text) => Ran::OutOfMemory,
                text => Ran::Panicked(text),
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
        jobs.into_iter().for_each(|job| job.finish(Err(error.clone()), &self.shared.metrics));
    }

    fn ran_out(&mut self, size: usize) {
        self.shared.metrics.oom.increment(1);
        self.calm = 0;
        self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
        self.set_limit((size / 2).max(1));
        tracing::warn!(model = %self.shared.name, items = size, limit = self.limit, "a batch ran out of memory, smaller ones are run");
        if let Some(model) = &mut self.model {
            let given_back = catch_unwind(AssertUnwindSafe(|| model.out_of_memory()));
            if given_back.is_err() {
                self.model = None;
            }
        }
    }

    fn went_well(&mut self, size: usize) {
        let max = self.shared.settings.max_size;
        if self.limit == max || size < self.limit {
            return;
        }
        self.calm += 1;
        if self.calm >= self.patience {
            self.calm = 0;
            self.set_limit((self.limit * 2).min(max));
            tracing::info!(model = %self.shared.name, limit = self.limit, "larger batches are tried again");
        }
    }

    fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shared.metrics.limit.set(limit as f64);
    }
}

fn is_out_of_memory(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["out of memory", "defaultcpuallocator", "cublas_status_alloc_failed", "cannot allocate memory"].iter().any(|sign| text.contains(sign))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
