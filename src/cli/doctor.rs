//! `opusflow doctor`: what is installed, and what can be reached.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::load;
use super::output::print;
use crate::broker::{Brokers, health};
use crate::cache::{Cache, CacheSettings};
use crate::error::{Error, Result};
use crate::pipeline::plan::{BrokersPlan, KafkaPlan};
use crate::pipeline::{self, Plan};
use crate::tensor::{self, Device, Precision};
use crate::{media, models};

/// How long brokers may take to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// The lines of the report, and whether all is well.
#[derive(Default)]
struct Report {
    text: String,
    bad: bool,
}

impl Report {
    fn line(&mut self, good: bool, what: &str, detail: impl std::fmt::Display) {
        self.bad |= !good;
        let mark = if good { "ok " } else { "BAD" };
        self.text
            .push_str(&format!("{mark}  {what:<28} {detail}\n"));
    }

    fn note(&mut self, what: &str, detail: impl std::fmt::Display) {
        self.text.push_str(&format!("--   {what:<28} {detail}\n"));
    }
}

pub(super) fn run(pipeline: Option<&Path>) -> Result<ExitCode> {
    let checked = match pipeline {
        Some(path) => match load::checked(path, &[], &[]) {
            Some(checked) => Some(checked),
            None => return Ok(ExitCode::from(2)),
        },
        None => None,
    };
    let mut report = Report::default();
    machine(&mut report);
    if let Some(checked) = &checked {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime =
            runtime.map_err(|error| Error::external("cannot start the runtime").because(error))?;
        runtime.block_on(reach(&checked.plan, &mut report));
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
    print(&report.text)?;
    Ok(if report.bad {
        ExitCode::from(3)
    } else {
        ExitCode::SUCCESS
    })
}

fn machine(report: &mut Report) {
    match media::init() {
        Ok(()) => {
            for (element, there, what) in media::required_elements() {
                report.line(there, &element, what);
            }
        }
        Err(error) => report.line(false, "gstreamer", error),
    }
    report.line(
        true,
        "libtorch",
        format!("CPU, fastest precision {}", Precision::best_on(Device::Cpu)),
    );
    match tensor::load_cuda(None) {
        Some(library) => report.line(true, "cuda", library.display()),
        None => report.note(
            "cuda",
            "no libtorch_cuda.so beside libtorch: models run on the CPU",
        ),
    }
    match nvml_wrapper::Nvml::init() {
        Ok(nvml) => report.line(
            true,
            "nvidia driver",
            nvml.sys_driver_version()
                .unwrap_or_else(|error| error.to_string()),
        ),
        Err(_) => report.note("nvidia driver", "none: GPU metrics are left out"),
    }
}

async fn reach(plan: &Plan, report: &mut Report) {
    open_models(plan, report);
    if let Some(kafka) = &plan.kafka {
        reach_kafka(kafka, report).await;
    }
    reach_redis(plan, report).await;
}

fn open_models(plan: &Plan, report: &mut Report) {
    for (name, model) in &plan.absent {
        report.note(
            &format!("model {name}"),
            format!("not here: `run` fetches {}", model.id),
        );
    }
    for (name, model) in &plan.models {
        match models::ModelFolder::open(&model.path) {
            Ok(_) => report.line(
                true,
                &format!("model {name}"),
                format!("{} at {}", model.architecture, model.path.display()),
            ),
            Err(error) => report.line(false, &format!("model {name}"), error),
        }
    }
}

async fn reach_kafka(kafka: &KafkaPlan, report: &mut Report) {
    match &kafka.brokers {
        BrokersPlan::Embedded => report.note("kafka", "embedded"),
        BrokersPlan::Addresses(addresses) => {
            let brokers = Brokers::Addresses(addresses.clone());
            let settings = pipeline::broker_settings(kafka, brokers);
            match health(&settings, BROKER_TIMEOUT).await {
                Ok(health) => report.line(
                    true,
                    "kafka",
                    format!(
                        "{} brokers, {} topics",
                        health.brokers.len(),
                        health.topics.len()
                    ),
                ),
                Err(error) => report.line(false, "kafka", error),
            }
        }
    }
    if kafka.registry.is_some() {
        let verdicts = match pipeline::registry(kafka) {
            Ok(registry) => registry.check(&kafka.namespace).await,
            Err(error) => Err(error),
        };
        match verdicts {
            Ok(verdicts) => report.line(
                true,
                "schema registry",
                format!("{} subjects checked", verdicts.len()),
            ),
            Err(error) => report.line(false, "schema registry", error),
        }
    }
}

async fn reach_redis(plan: &Plan, report: &mut Report) {
    if let Some(url) = plan
        .cache
        .redis
        .as_ref()
        .map(|url| url.reveal().to_owned())
        .filter(|url| !url.is_empty())
    {
        match Cache::open(&CacheSettings {
            redis: Some(url),
            ..CacheSettings::default()
        })
        .await
        {
            Ok(cache) => report.line(
                cache.stats().redis_up == Some(true),
                "redis",
                "answers are kept across runs where it answers",
            ),
            Err(error) => report.line(false, "redis", error),
        }
    }
}
