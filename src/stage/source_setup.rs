//! From an opened video to a session's feed: the part that every source shares, and the parameters
//! that go with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Context, Feed, Host};
use crate::Result;
use crate::config::shape::{Default, Field, Type};
use crate::config::{Params, Value};
use crate::media::{
    Fit, FrameRate, OpenedStream, Options, SoundReader, SoundView, StreamEnd, View, ViewReader,
};
use crate::packet::{Event, Micros, Origin, Stream, TimeSource, now_micros};
use crate::telemetry::{MediaMetrics, SourceMetrics};

/// The key `views` of every source.
pub const VIEWS: Field = Field {
    name: "views",
    ty: Type::Map(&Type::Object(&[
        Field {
            name: "fps",
            ty: Type::Fps,
            default: Default::Is("native"),
            doc: "Frames a second; frames are only left out, never doubled.",
        },
        Field {
            name: "size",
            ty: Type::Size,
            default: Default::Is("native"),
            doc: "Width and height in pixels. Without it frames are as they were decoded, upright, \
                  with square pixels.",
        },
        Field {
            name: "fit",
            ty: Type::Choice(&["stretch", "contain", "cover"]),
            default: Default::Is("stretch"),
            doc: "How a picture of another shape becomes one of `size`: stretched; whole, with \
                  black bars; or cut to it.",
        },
        Field {
            name: "audio",
            ty: Type::Duration,
            default: Default::Absent,
            doc: "Makes it a view of the sound instead, one channel at 16 kHz, in pieces of this \
                  length (10 ms to 1 min).",
        },
    ])),
    default: Default::Required,
    doc: "What stages can read from this source, by name: `inputs: [id.view]`. One decoder serves \
          all views.",
};

/// The key `labels`.
pub(crate) const LABELS: Field = Field {
    name: "labels",
    ty: Type::Map(&Type::Text),
    default: Default::Absent,
    doc: "Labels that every record of the stream carries.",
};

/// The key `stall`.
pub(crate) const STALL: Field = Field {
    name: "stall",
    ty: Type::Duration,
    default: Default::Is("10s"),
    doc: "A stream that gives no frame for this long while one is asked for has broken off.",
};

/// The key `connect`.
pub(crate) const CONNECT: Field = Field {
    name: "connect",
    ty: Type::Duration,
    default: Default::Is("15s"),
    doc: "How long the first frame may take.",
};

/// The key `max_pixels`.
pub(crate) const MAX_PIXELS: Field = Field {
    name: "max_pixels",
    ty: Type::Int(1, 1 << 32),
    default: Default::Is("67108864"),
    doc: "Larger pictures (width times height) are refused before memory is taken for them.",
};

/// The key `deinterlace`.
pub(crate) const DEINTERLACE: Field = Field {
    name: "deinterlace",
    ty: Type::Choice(&["auto", "never"]),
    default: Default::Is("auto"),
    doc: "`auto` makes one whole frame of the two fields of each interlaced picture; `never` leaves \
          them woven into each other.",
};

/// What every source sets up from its parameters.
#[derive(Debug)]
pub struct SourceSetup {
    /// The stage.
    pub origin: Arc<Origin>,
    /// The key `labels`; empty where the kind has it elsewhere.
    pub labels: BTreeMap<String, String>,
    /// What `media` needs.
    pub options: Options,
}

impl SourceSetup {
    /// By the keys of a source; `live` where its frames come at their own pace.
    pub fn new(context: &Context<'_>, live: bool) -> Self {
        let (origin, labels) = (Arc::clone(context.origin), labels(context.params));
        Self {
            origin,
            labels,
            options: options(context.params, live, context.deps.decode_threads),
        }
    }

    /// A session of the stream `id`.
    pub fn stream(&self, id: Arc<str>, labels: BTreeMap<String, String>) -> Stream {
        let live = self.options.live;
        let time_source = match live {
            true if self.options.sender_clock => TimeSource::Ntp,
            true => TimeSource::Ingest,
            false => TimeSource::File,
        };
        Stream {
            id,
            labels,
            session: format!("{:016x}", rand::random::<u64>()).into(),
            live,
            time_source,
        }
    }

    /// Plays a video from start to end, or until `stop`, as a session of its own.
    ///
    /// # Errors
    /// What ended it, where that was not its regular end.
    pub(crate) async fn play(
        &self,
        opened: OpenedStream,
        id: Arc<str>,
        started: Event,
        to: (&Arc<dyn Host>, &CancellationToken),
    ) -> Result<()> {
        let (host, stop) = to;
        let feed = host.open(self.stream(id, self.labels.clone())).await?;
        let now = now_micros();
        feed.epoch(
            if self.options.live {
                now.unsigned_abs()
            } else {
                0
            },
            now,
        )
        .await;
        feed.event(started).await;
        if let Some(length) = opened.info.duration {
            feed.length(length);
        }
        let ended = pump(
            opened,
            PumpContext {
                feed: &feed,
                origin: &self.origin,
                stop,
                once: true,
            },
        )
        .await;
        feed.finish(ended.reason()).await;
        ended.error.map_or(Ok(()), Err)
    }
}

fn options(params: &Params, live: bool, decode_threads: usize) -> Options {
    let views = params.map("views").iter().filter_map(|(name, view)| {
        let view = view
            .as_object()
            .filter(|view| view.opt_duration("audio").is_none())?;
        let fps = view.fps("fps").map(|(num, den)| FrameRate::new(num, den));
        Some(View {
            fps,
            size: view.size("size"),
            fit: match &**view.text("fit") {
                "contain" => Fit::Contain,
                "cover" => Fit::Cover,
                _ => Fit::Stretch,
            },
            ..View::native(name.as_str())
        })
    });
    let sounds = params.map("views").iter().filter_map(|(name, view)| {
        let piece = view.as_object()?.opt_duration("audio")?;
        Some(SoundView {
            name: name.as_str().into(),
            piece,
        })
    });
    Options {
        views: views.collect(),
        sounds: sounds.collect(),
        live,
        stall: params.duration("stall"),
        connect: params.duration("connect"),
        max_pixels: params.int("max_pixels").unsigned_abs(),
        latency: None,
        sender_clock: false,
        deinterlace: params
            .opt_text("deinterlace")
            .is_none_or(|word| **word != *"never"),
        decode_threads: u32::try_from(decode_threads).unwrap_or(1),
    }
}

/// The key `labels`, as records carry it.
pub fn labels(params: &Params) -> BTreeMap<String, String> {
    let labels = params.opt_map("labels").unwrap_or_default();
    labels
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_text()?.to_string())))
        .collect()
}

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Why; none for the regular end of the stream.
    pub error: Option<crate::Error>,
    /// Whether `stop` ended it.
    pub stopped: bool,
    /// Wall clock of the newest frame.
    pub last: Option<Micros>,
}

impl Ended {
    /// What the session's `ended` event says of it.
    pub fn reason(&self) -> String {
        match &self.error {
            None if self.stopped => "shutdown".to_owned(),
            None => "end_of_stream".to_owned(),
            Some(error) => error.to_string(),
        }
    }
}

/// Where what a video gives goes.
#[derive(Clone, Copy)]
pub struct PumpContext<'a> {
    /// Into this session.
    pub feed: &'a Arc<dyn Feed>,
    /// By this stage.
    pub origin: &'a Origin,
    /// Until this is cancelled.
    pub stop: &'a CancellationToken,
    /// Whether a view that has ended has ended for good, for no other video follows in the session.
    pub once: bool,
}

/// Pushes every frame of every view and all sound until the video ends or it is stopped. Views wait
/// for their own readers only.
pub(crate) async fn pump(mut opened: OpenedStream, context: PumpContext<'_>) -> Ended {
    let readers = std::mem::take(&mut opened.views);
    let pictures = join_all(readers.into_iter().map(|reader| pump_view(reader, context)));
    let sounds = std::mem::take(&mut opened.sounds);
    let sounds = join_all(sounds.into_iter().map(|reader| pump_sound(reader, context)));
    let (last, _) = tokio::join!(pictures, sounds);
    let last = last.into_iter().flatten().max();
    let stopped = context.stop.is_cancelled();
    let error = if stopped {
        None
    } else {
        // The views have ended, so the word why is on its context.
        match tokio::time::timeout(Duration::from_secs(5), opened.handle.ended()).await {
            Ok(StreamEnd::EndOfStream | StreamEnd::Stopped) => None,
            Ok(StreamEnd::Failed(error)) => Some(error),
            Err(_) => Some(crate::Error::external(
                "the stream ended without saying why",
            )),
        }
    };
    let lost = opened.handle.lost();
    let lost = lost.corrupt + lost.undecodable;
    SourceMetrics::new(&context.origin.pipeline, &context.origin.stage)
        .corrupt
        .increment(lost);
    context.feed.lost(lost);
    opened.handle.stop().await;
    Ended {
        error,
        stopped,
        last,
    }
}

async fn pump_view(mut reader: ViewReader, context: PumpContext<'_>) -> Option<Micros> {
    let metrics = MediaMetrics::new(
        &context.origin.pipeline,
        &context.origin.stage,
        reader.name(),
    );
    let mut last = None;
    while let Some(Some(captured)) = context.stop.run_until_cancelled(reader.next()).await {
        last = Some(captured.arrived);
        metrics.frames.increment(1);
        metrics.bytes.increment(captured.frame.pixels.len() as u64);
        context
            .feed
            .frame(captured.frame, captured.span, captured.arrived)
            .await;
    }
    context.ended(reader.name()).await;
    last
}

async fn pump_sound(mut reader: SoundReader, context: PumpContext<'_>) {
    let metrics = MediaMetrics::new(
        &context.origin.pipeline,
        &context.origin.stage,
        reader.name(),
    );
    while let Some(Some(heard)) = context.stop.run_until_cancelled(reader.next()).await {
        metrics.frames.increment(1);
        metrics.bytes.increment(heard.audio.samples.len() as u64);
        context
            .feed
            .audio(heard.audio, heard.span, heard.arrived)
            .await;
    }
    context.ended(reader.name()).await;
}

impl PumpContext<'_> {
    /// Others must not wait for a view of which nothing more will come.
    async fn ended(&self, view: &str) {
        if self.once {
            self.feed.end(view).await;
        }
    }
}

/// The text values of a list.
pub fn texts(values: &[Value]) -> Vec<Arc<str>> {
    values
        .iter()
        .filter_map(|value| value.as_text().cloned())
        .collect()
}
