//! The Prometheus endpoint, and the recorder behind every metric handle.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::metric::Metric;
use super::{names, system};
use crate::error::{Error, Result};

/// Upper bounds in seconds, from a queue's handover to a slow caption.
const SECONDS: [f64; 19] = [
    5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
const BATCH: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const FILL: [f64; 8] = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0];

/// How often a free port is looked for.
const PORT_ATTEMPTS: u32 = 16;
const ADDRESS: &str = "give an address of this machine and a port that it may open";

/// Tells the recorder every metric's unit and text.
fn describe() {
    names::ALL.iter().for_each(Metric::describe);
}

type Serve = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The installed recorder. Install it before anything makes its metric handles: a handle made
/// earlier counts into nothing.
pub struct Exporter {
    address: Option<SocketAddr>,
}

impl Exporter {
    /// Installs the process's recorder and, given an address, serves it over HTTP there; on port 0,
    /// on a port that is free. Call it inside the tokio runtime, once.
    ///
    /// # Errors
    /// External where the address cannot be listened on, bug where a recorder is already installed.
    pub fn install(address: Option<SocketAddr>) -> Result<Self> {
        let (recorder, serve, address) = bind(address)?;
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder)
            .map_err(|_| Error::bug("a metrics recorder is already installed"))?;
        describe();
        system::publish_build_info();
        match serve {
            Some(serve) => {
                tokio::spawn(async move {
                    if !serve.await {
                        tracing::error!("the metrics endpoint ended");
                    }
                });
            }
            None => drop(tokio::spawn(upkeep(handle))),
        }
        Ok(Self { address })
    }

    /// Where it is served: the port that was taken, where 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// A recorder with our buckets.
fn recorder() -> Result<PrometheusRecorder> {
    Ok(builder()?.build_recorder())
}

/// The recorder, and with an address what serves it, and where; the port is taken from here on.
fn bind(
    address: Option<SocketAddr>,
) -> Result<(PrometheusRecorder, Option<Serve>, Option<SocketAddr>)> {
    let Some(address) = address else {
        return Ok((recorder()?, None, None));
    };
    let mut tries = if address.port() == 0 {
        PORT_ATTEMPTS
    } else {
        1
    };
    loop {
        tries -= 1;
        let chosen = if address.port() == 0 {
            free_port(address)?
        } else {
            address
        };
        match builder()?.with_http_listener(chosen).build() {
            Ok((recorder, serve)) => {
                return Ok((
                    recorder,
                    Some(Box::pin(async move { serve.await.is_ok() })),
                    Some(chosen),
                ));
            }
            // Between the look and the taking another process may take a free port.
            Err(error) if tries > 0 && port_taken(&error) => {}
            Err(error) => return Err(listen_error(chosen, error)),
        }
    }
}

/// The address with a port that is free now. The exporter does not say which one it got, so it is
/// not left to it to choose.
fn free_port(address: SocketAddr) -> Result<SocketAddr> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map_err(|error| {
        Error::external(format!("cannot serve metrics on {address}"))
            .because(error)
            .hint(ADDRESS)
    })
}

fn builder() -> Result<PrometheusBuilder> {
    let wrong = |error: BuildError| Error::bug("the metrics buckets are refused").because(error);
    PrometheusBuilder::new()
        .upkeep_timeout(Duration::from_secs(1))
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| {
            builder
                .set_buckets_for_metric(Matcher::Full(names::WORKER_BATCH.name.to_owned()), &BATCH)
        })
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full(names::WORKER_FILL.name.to_owned()), &FILL)
        })
        .map_err(wrong)
}

fn listen_error(address: SocketAddr, error: BuildError) -> Error {
    let taken = port_taken(&error);
    let failed = Error::external(format!("cannot serve metrics on {address}")).because(error);
    match taken {
        true => {
            failed.hint("another process listens there: give another port, or stop that process")
        }
        false => failed.hint(ADDRESS),
    }
}

fn port_taken(error: &BuildError) -> bool {
    matches!(error, BuildError::FailedToCreateHTTPListener(text) if text.contains("in use"))
}

/// Histograms keep raw samples until they are folded into their buckets; unread ones would grow.
async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{QueueMetrics, SinkMetrics, StageMetrics};

    #[test]
    fn handles_count_under_their_labels() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            let stage = StageMetrics::new("news", "shots");
            stage.received.increment(3);
            stage.dropped("stale").increment(2);
            stage.process_seconds.record(0.002);
            QueueMetrics::new("news", "shots", "cams.cuts")
                .packets
                .set(7.0);
            SinkMetrics::new("news", "topics")
                .record("segment")
                .delivered
                .increment(1);
        });
        let text = handle.render();
        assert!(
            text.contains(
                r#"opusflow_stage_received_packets_total{pipeline="news",stage="shots"} 3"#
            ),
            "{text}"
        );
        assert!(text.contains(r#"reason="stale"} 2"#), "{text}");
        assert!(text.contains(r#"opusflow_stage_processing_seconds_bucket{pipeline="news",stage="shots",le="0.0025"} 1"#), "{text}");
        assert!(
            text.contains("# HELP opusflow_stage_queue_packets Packets that wait"),
            "{text}"
        );
        assert!(text.contains(r#"record="segment"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn endpoint_answers_a_scrape() {
        let (recorder, serve, address) = bind(Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = address.expect("an address is served");
        assert_ne!(address.port(), 0, "it says which port it took");
        let server = tokio::spawn(serve.expect("an address is served"));
        ::metrics::with_local_recorder(&recorder, || names::CACHE_REDIS_UP.gauge(&[]).set(1.0));
        let text = reqwest::get(format!("http://{address}/metrics"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(text.contains("opusflow_cache_redis_up 1"), "{text}");
        server.abort();
    }

    #[tokio::test]
    async fn taken_port_is_an_external_error_with_a_hint() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(Some(address)).err().expect("the port is taken");
        assert_eq!(error.kind(), crate::error::Kind::External);
        assert!(error.message().contains(&address.to_string()));
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("another port")),
            "{error}"
        );
    }
}
