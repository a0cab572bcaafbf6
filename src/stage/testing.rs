//! Packets for the tests of this and the higher rooms.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Account, StageKind};
use crate::config::{Params, Problems, Reader, SourceText, parse};
use crate::packet::{
    Channel, Frame, Head, Origin, Packet, Payload, PixelFormat, Span, Stream, TimeSource,
    now_micros,
};

/// An account to open roots in.
pub fn root() -> Arc<Account> {
    Arc::default()
}

/// A stream called `id`.
pub fn stream(id: &str) -> Arc<Stream> {
    let (id, session) = (Arc::from(id), Arc::from("test"));
    Arc::new(Stream {
        id,
        labels: BTreeMap::new(),
        session,
        live: false,
        time_source: TimeSource::File,
    })
}

/// A stage called `stage`.
pub fn origin(stage: &str) -> Arc<Origin> {
    let (stage, pipeline, config_hash) = (Arc::from(stage), Arc::from("test"), Arc::from("0"));
    Arc::new(Origin {
        stage,
        kind: "test",
        pipeline,
        config_hash,
        parameters: [0; 16],
    })
}

/// A head about `span` of stream `test`.
pub fn head(span: Span) -> Head {
    Head {
        channel: Arc::new(Channel {
            stream: stream("test"),
            origin: origin("source"),
        }),
        epoch: 0,
        span,
        seq: span.start,
        ordinal: 0,
        event_time: (span.start / 1000) as i64,
        ingest_time: now_micros(),
        emit_time: now_micros(),
        parents: Vec::new(),
        model: None,
        revision: 0,
        is_final: true,
    }
}

/// A frame of 2 x 2 pixels.
pub fn frame(index: u64) -> Frame {
    let pixels = Bytes::from_static(&[0; 12]);
    Frame {
        view: Arc::from("frames"),
        index,
        width: 2,
        height: 2,
        stride: 6,
        format: PixelFormat::Rgb8,
        pixels,
    }
}

/// `count` frames with pts 0, 1, 2... of `account`.
pub fn frames(account: &Arc<Account>, count: u64) -> Vec<Packet> {
    let packet = |pts| Packet {
        head: Arc::new(head(Span::new(pts, pts + 1))),
        payload: Payload::Frame(Arc::new(frame(pts))),
        receipt: account.open(0, pts + 1),
    };
    (0..count).map(packet).collect()
}

/// The parameters of a kind, as a pipeline writes them.
pub fn params(kind: &StageKind, text: &str) -> Params {
    let mut problems = Problems::new(&SourceText::new("with", text));
    let node = parse(&mut problems, 0, 0).expect("a mapping");
    let params = Reader::new(&mut problems).object(&node, node.place, kind.params);
    assert!(problems.lines().is_empty(), "{:?}", problems.lines());
    params
}
