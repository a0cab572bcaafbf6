//! `test`: a generated picture (GStreamer's videotestsrc), for trying a pipeline without a film and
//! for load tests.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::config::shape::{Default, Field, Type};
use crate::media;
use crate::packet::{Event, PayloadKind};
use crate::stage::source_setup::{self, SourceSetup};
use crate::stage::{Build, Context, Endpoint, Host, Joins, Lookahead, Source, StageKind};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "test",
    doc: "Generated pictures, for trying a pipeline without a film and for load tests.",
    accepts: &[],
    emits: &[PayloadKind::Frame, PayloadKind::Audio],
    params: &[
        Field {
            name: "pattern",
            ty: Type::Choice(&[
                "smpte",
                "ball",
                "snow",
                "black",
                "white",
                "red",
                "green",
                "blue",
                "gradient",
                "zone-plate",
            ]),
            default: Default::Is("ball"),
            doc: "What is drawn.",
        },
        Field {
            name: "rate",
            ty: Type::Int(1, 1000),
            default: Default::Is("30"),
            doc: "Frames a second that are drawn.",
        },
        Field {
            name: "picture",
            ty: Type::Size,
            default: Default::Is("320x240"),
            doc: "Width and height that are drawn.",
        },
        Field {
            name: "frames",
            ty: Type::Int(1, 1 << 31),
            default: Default::Absent,
            doc: "Frames until the stream ends; endless when left out.",
        },
        Field {
            name: "live",
            ty: Type::Bool,
            default: Default::Is("false"),
            doc: "Whether frames come at their own pace, or as fast as they are taken.",
        },
        Field {
            name: "streams",
            ty: Type::Int(1, 1024),
            default: Default::Is("1"),
            doc: "Streams at a time.",
        },
        source_setup::VIEWS,
        source_setup::LABELS,
        source_setup::STALL,
        source_setup::CONNECT,
        source_setup::MAX_PIXELS,
    ],
    joins: Joins::AsWritten,
    endpoint: Endpoint::Other,
    lookahead: Lookahead::none,
    build: Build::Source(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Source>> {
    let params = context.params;
    let live = params.bool("live");
    let (width, height) = params.size("picture").unwrap_or((320, 240));
    let frames = params
        .opt_int("frames")
        .map_or_else(String::new, |frames| format!("&frames={frames}"));
    let (pattern, rate) = (params.text("pattern"), params.int("rate"));
    Ok(Arc::new(TestSource {
        setup: SourceSetup::new(context, live),
        uri: format!(
            "test://?pattern={pattern}&fps={rate}&size={width}x{height}&live={live}{frames}"
        ),
        streams: params.int("streams"),
    }))
}

struct TestSource {
    setup: SourceSetup,
    uri: String,
    streams: i64,
}

#[async_trait]
impl Source for TestSource {
    async fn run(&self, host: Arc<dyn Host>, stop: CancellationToken) -> Result<()> {
        let ended = join_all((0..self.streams).map(|number| self.draw(number, &host, &stop))).await;
        ended.into_iter().collect()
    }
}

impl TestSource {
    async fn draw(
        &self,
        number: i64,
        host: &Arc<dyn Host>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let opened = media::open(&self.uri, &self.setup.options).await?;
        let id = format!("{}-{number}", self.setup.origin.stage).into();
        self.setup
            .play(
                opened,
                id,
                Event::Started {
                    uri: self.uri.clone(),
                    digest: None,
                },
                (host, stop),
            )
            .await
    }
}
