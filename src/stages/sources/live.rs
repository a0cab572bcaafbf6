//! `live`: RTMP, RTSP, SRT and HLS streams that come at their own pace. A stream that drops is
//! connected again with jittered backoff; each connection is an epoch, and an event reports the
//! gap between two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::config::Params;
use crate::config::shape::{Default, Field, Type};
use crate::media;
use crate::packet::{Event, Micros, PayloadKind, now_micros};
use crate::stage::source_setup::{self, PumpContext, SourceSetup};
use crate::stage::{Build, Context, Endpoint, Feed, Host, Joins, Lookahead, Source, StageKind};
use crate::telemetry::SourceMetrics;
use crate::{Error, Result, redact};

/// What is said of a connection that ended without an error.
const ENDED: &str = "the sender ended the stream";

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "live",
    doc: "LiveSource streams by URL (rtmp, rtmps, rtsp, srt, hls as http or https). One that drops is \
          connected again; an event reports the gap.",
    accepts: &[],
    emits: &[PayloadKind::Frame, PayloadKind::Audio],
    params: &[
        Field {
            name: "streams",
            ty: Type::List(&Type::Object(&[
                Field {
                    name: "id",
                    ty: Type::Text,
                    default: Default::Absent,
                    doc: "The stream's id; derived from the URL when left out.",
                },
                Field {
                    name: "url",
                    ty: Type::Text,
                    default: Default::Required,
                    doc: "Where it is, credentials included.",
                },
                source_setup::LABELS,
            ])),
            default: Default::Required,
            doc: "The streams. Each has queues of its own; none waits for another.",
        },
        source_setup::VIEWS,
        Field {
            name: "backoff",
            ty: Type::Duration,
            default: Default::Is("500ms"),
            doc: "The pause before the second try to connect; it doubles, with jitter.",
        },
        Field {
            name: "max_backoff",
            ty: Type::Duration,
            default: Default::Is("15s"),
            doc: "The longest pause between tries.",
        },
        Field {
            name: "give_up",
            ty: Type::Duration,
            default: Default::Absent,
            doc: "A stream that could not be connected for this long ends; tried for ever when \
                  left out.",
        },
        Field {
            name: "latency",
            ty: Type::Duration,
            default: Default::Is("200ms"),
            doc: "The jitter buffer of RTSP and SRT.",
        },
        Field {
            name: "clock",
            ty: Type::Choice(&["ingest", "ntp"]),
            default: Default::Is("ingest"),
            doc: "Where event times come from: `ingest` is our clock when a connection's first \
                  frame arrives; `ntp`, for RTSP, the camera's own, and a connection then begins \
                  with its first sender report (RTCP), which takes a few seconds: what comes \
                  before is left out.",
        },
        source_setup::STALL,
        source_setup::CONNECT,
        source_setup::MAX_PIXELS,
        source_setup::DEINTERLACE,
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Live,
    lookahead: Lookahead::none,
    build: Build::Source(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Source>> {
    let params = context.params;
    let streams = params
        .list("streams")
        .iter()
        .filter_map(|stream| stream.as_object());
    let streams: Vec<_> = streams
        .map(|stream| Camera::new(&context.origin.stage, stream))
        .collect();
    distinct_ids(&streams)?;
    let mut setup = SourceSetup::new(context, true);
    setup.options.latency = Some(params.duration("latency"));
    setup.options.sender_clock = **params.text("clock") == *"ntp";
    let reports =
        |camera: &&Camera| camera.url.starts_with("rtsp:") || camera.url.starts_with("rtsps:");
    if let Some(camera) = streams
        .iter()
        .find(|camera| setup.options.sender_clock && !reports(camera))
    {
        let error = Error::config(format!(
            "stream `{}` has no sender reports, which `clock: ntp` needs",
            camera.id
        ));
        return Err(error.hint("only RTSP has them: give this stream a `live` stage of its own"));
    }
    let (backoff, max_backoff, give_up) = (
        params.duration("backoff"),
        params.duration("max_backoff"),
        params.opt_duration("give_up"),
    );
    let metrics = SourceMetrics::new(&setup.origin.pipeline, &setup.origin.stage);
    Ok(Arc::new(LiveSource {
        setup,
        metrics,
        streams,
        backoff,
        max_backoff,
        give_up,
    }))
}

/// Refuses two streams with one id: their records could not be told apart.
fn distinct_ids(streams: &[Camera]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for camera in streams {
        if let Some(other) = seen.insert(&camera.id, camera) {
            let error = Error::config(format!(
                "two streams have the id `{}`: {} and {}",
                camera.id,
                redact::redact(&other.url),
                redact::redact(&camera.url)
            ));
            return Err(error.hint("give each an `id` of its own"));
        }
    }
    Ok(())
}

struct LiveSource {
    setup: SourceSetup,
    metrics: SourceMetrics,
    streams: Vec<Camera>,
    backoff: Duration,
    max_backoff: Duration,
    give_up: Option<Duration>,
}

struct Camera {
    id: Arc<str>,
    url: Arc<str>,
    labels: BTreeMap<String, String>,
}

impl Camera {
    fn new(source: &str, params: &Params) -> Self {
        let url = Arc::clone(params.text("url"));
        let id = params.opt_text("id").cloned();
        let id = id.unwrap_or_else(|| derived_id(source, &url));
        Self {
            id,
            url,
            labels: source_setup::labels(params),
        }
    }
}

/// A hash of what tells the stream from others, not of its text: a new password is no new stream.
fn derived_id(source: &str, url: &str) -> Arc<str> {
    let hash = blake3::hash(redact::identity(url).as_bytes()).to_hex();
    Arc::from(format!("{source}-{}", &hash[..8]))
}

/// The connection before, for the event that reports the gap.
struct LostConnection {
    epoch: u64,
    last: Micros,
    had_frames: bool,
    reason: String,
}

#[async_trait]
impl Source for LiveSource {
    async fn run(&self, host: Arc<dyn Host>, stop: CancellationToken) -> Result<()> {
        let ended = join_all(
            self.streams
                .iter()
                .map(|camera| self.watch(camera, &host, &stop)),
        )
        .await;
        ended.into_iter().collect()
    }
}

impl LiveSource {
    /// Keeps one stream connected until `stop`, or until it is given up.
    async fn watch(
        &self,
        camera: &Camera,
        host: &Arc<dyn Host>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let feed = host
            .open(
                self.setup
                    .stream(Arc::clone(&camera.id), camera.labels.clone()),
            )
            .await?;
        let ended = self.keep_connected(camera, &feed, stop).await;
        feed.finish(
            ended
                .as_ref()
                .err()
                .map_or_else(|| "shutdown".to_owned(), ToString::to_string),
        )
        .await;
        ended
    }

    async fn keep_connected(
        &self,
        camera: &Camera,
        feed: &Arc<dyn Feed>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut before: Option<LostConnection> = None;
        let mut pause = self.backoff;
        let mut since = tokio::time::Instant::now();
        let mut quiet = false;
        while !stop.is_cancelled() {
            let Some(opened) = stop
                .run_until_cancelled(media::open(&camera.url, &self.setup.options))
                .await
            else {
                break;
            };
            let error = match opened {
                Ok(opened) => {
                    let (connection, error) = self
                        .follow(camera, (opened, before.take()), feed, stop)
                        .await;
                    if connection.had_frames {
                        (pause, since, quiet) = (self.backoff, tokio::time::Instant::now(), false);
                    }
                    before = Some(connection);
                    error
                }
                Err(error) => error,
            };
            if stop.is_cancelled() {
                break;
            }
            if self.give_up.is_some_and(|limit| since.elapsed() >= limit) {
                return Err(error.context(format_args!("stream `{}` was given up", camera.id)));
            }
            if !std::mem::replace(&mut quiet, true) {
                tracing::warn!(stream = %camera.id, %error, "stream is away, connecting again");
            }
            let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
            stop.run_until_cancelled(tokio::time::sleep(jitter)).await;
            self.metrics.reconnects.increment(1);
            pause = (pause * 2).min(self.max_backoff);
        }
        Ok(())
    }

    /// Reads one connection to its end, an epoch; says what ended it.
    async fn follow(
        &self,
        camera: &Camera,
        (opened, before): (media::OpenedStream, Option<LostConnection>),
        feed: &Arc<dyn Feed>,
        stop: &CancellationToken,
    ) -> (LostConnection, Error) {
        let epoch = now_micros();
        let base = opened.info.began.unwrap_or(epoch);
        self.announce(camera, feed, (epoch, base), before).await;
        self.metrics.connected.increment(1.0);
        let context = PumpContext {
            feed,
            origin: &self.setup.origin,
            stop,
            once: false,
        };
        let ended = source_setup::pump(opened, context).await;
        self.metrics.connected.decrement(1.0);
        let reason = match &ended.error {
            Some(error) => error.to_string(),
            None => ENDED.to_owned(),
        };
        let lost = LostConnection {
            epoch: epoch.unsigned_abs(),
            last: ended.last.unwrap_or(epoch),
            had_frames: ended.last.is_some(),
            reason,
        };
        (lost, ended.error.unwrap_or_else(|| Error::external(ENDED)))
    }

    async fn announce(
        &self,
        camera: &Camera,
        feed: &Arc<dyn Feed>,
        (epoch, base): (Micros, Micros),
        before: Option<LostConnection>,
    ) {
        tracing::info!(stream = %camera.id, epoch, "stream connected");
        let to_epoch = epoch.unsigned_abs();
        feed.epoch(to_epoch, base).await;
        match before {
            None => {
                feed.event(Event::Started {
                    uri: redact::redact(&camera.url),
                    digest: None,
                })
                .await
            }
            Some(LostConnection {
                epoch: from_epoch,
                last: from,
                reason,
                ..
            }) => {
                self.metrics.gaps.increment(1);
                feed.event(Event::Gap {
                    from,
                    to: epoch,
                    reason,
                    from_epoch,
                    to_epoch,
                })
                .await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(url: &str) -> Camera {
        let url = Arc::from(url);
        Camera {
            id: derived_id("cams", &url),
            url,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn ids_differ_where_urls_do_and_outlive_a_password() {
        let cameras = [
            "rtmp://h/app/one",
            "rtmp://h/app/two",
            "srt://h:1?streamid=one",
            "srt://h:1?streamid=two",
            "rtsp://joe:hunter2@h/user=a_password=hunter2_channel=1.sdp",
            "rtsp://joe:hunter2@h/user=a_password=hunter2_channel=2.sdp",
        ];
        let cameras: Vec<_> = cameras.into_iter().map(camera).collect();
        distinct_ids(&cameras).expect("each has its id");
        let before = camera("rtsp://joe:hunter2@h/x?token=a");
        let after = camera("rtsp://joe:another@h/x?token=b");
        assert_eq!(before.id, after.id);
        let error = distinct_ids(&[before, after]).expect_err("one id");
        let text = error.to_string();
        assert!(text.contains("two streams have the id `cams-"), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("another@"),
            "{text}"
        );
    }
}
