//! One packet of every kind, for tests: every field set, text beyond ASCII, nulls and values in
//! turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::packet::*;

/// 2026-01-02T03:04:05.678901Z.
pub(crate) const EVENT_TIME: Micros = 1_767_323_045_678_901;

/// The packet of `kind`.
pub(crate) fn packet(kind: PayloadKind) -> Packet {
    packets()
        .into_iter()
        .find(|packet| packet.payload.kind() == kind)
        .unwrap()
}

/// One packet of every kind, and each variety of event and picture.
pub(crate) fn packets() -> Vec<Packet> {
    payloads()
        .into_iter()
        .enumerate()
        .map(|(index, payload)| Packet {
            head: head(index as u64),
            payload,
            receipt: Receipt::none(),
        })
        .collect()
}

fn head(index: u64) -> Arc<Head> {
    let labels = [("channel", "one"), ("place", "Köln")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let model = ModelTag {
        id: "SmolLM2-135M-Instruct".to_owned(),
        revision: "0a1b2c".to_owned(),
        precision: "bf16".to_owned(),
    };
    Arc::new(Head {
        channel: Arc::new(Channel {
            stream: Arc::new(Stream {
                id: "studio 1/ü".into(),
                labels: BTreeMap::from(labels),
                session: "s-1".into(),
                live: true,
                time_source: TimeSource::Ntp,
            }),
            origin: Arc::new(Origin {
                stage: "captions".into(),
                kind: "caption",
                pipeline: "newsroom".into(),
                config_hash: "c0ffee".into(),
                parameters: [3; 16],
            }),
        }),
        epoch: 1_767_323_000_000_000,
        span: Span::new(1_500_000_000, 4_000_000_000),
        seq: index,
        ordinal: 0,
        event_time: EVENT_TIME,
        ingest_time: EVENT_TIME + 1_000,
        emit_time: EVENT_TIME + 2_000,
        parents: vec![RecordId([7; 16]), RecordId([0xab; 16])],
        model: (index % 2 == 1).then(|| Arc::new(model)),
        revision: 0,
        is_final: true,
    })
}

fn payloads() -> Vec<Payload> {
    let label = |name: &str, score| Label {
        name: name.into(),
        score,
    };
    let mut all = vec![
        Payload::Frame(Arc::new(Frame {
            view: "frames".into(),
            index: 42,
            width: 640,
            height: 360,
            stride: 1920,
            format: PixelFormat::Rgb8,
            pixels: Bytes::from_static(&[0; 64]),
        })),
        Payload::Caption(Arc::new(Caption {
            text: "A \"quiet\" street, früh".to_owned(),
            language: "en".to_owned(),
            platform: String::new(),
            tags: vec![label("street", 0.9), label("straße", 0.05)],
            tokens: 9,
            finish: Finish::Length,
            partial: true,
            variant: 0,
        })),
        Payload::Segment(Arc::new(Segment {
            index: 3,
            cut: Cut::MaxLength,
            confidence: 0.125,
            frames: 375,
        })),
        Payload::Embedding(Arc::new(Embedding {
            space: "resnet-18@0a1b2c".into(),
            dtype: VectorType::F32,
            dim: 3,
            normalized: true,
            vector: [0.5_f32, -1.0, 1e-7]
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
            frames: 1,
            labels: vec![label("cat", 1.0)],
            scores: None,
        })),
        Payload::Audio(Arc::new(Audio {
            view: "sound".into(),
            index: 7,
            samples: Bytes::from_static(&[0; 64]),
        })),
        Payload::Transcript(Arc::new(Transcript {
            text: "Willst du mitmachen? Ja, früh.".to_owned(),
            language: "de".to_owned(),
            language_probability: 0.75,
            task: SpeechTask::Transcribe,
            words: vec![SpokenWord {
                text: "früh.".to_owned(),
                span: Span::new(2_000_000_000, 2_340_000_000),
                probability: 0.5,
            }],
            average_log_probability: -0.25,
            no_speech_probability: 0.125,
        })),
        Payload::DeadLetter(Arc::new(DeadLetter {
            record: PayloadKind::Frame,
            stage: "vectors".to_owned(),
            error_kind: "model".to_owned(),
            error: "the frame has no pixels".to_owned(),
            attempts: 3,
        })),
    ];
    all.extend(
        [None, Some(EVENT_TIME)].map(|expires_at| Payload::Picture(Arc::new(picture(expires_at)))),
    );
    all.extend(events().map(|event| Payload::Event(Arc::new(event))));
    all
}

/// By reference where it never expires, inline where it does.
fn picture(expires_at: Option<Micros>) -> Picture {
    Picture {
        role: "keyframe".to_owned(),
        uri: "file:./out/objects/a.jpg".to_owned(),
        sha256: "ab".repeat(32),
        media_type: "image/jpeg".to_owned(),
        width: 640,
        height: 360,
        expires_at,
        data: Bytes::from_static(&[0xff, 0xd8, 0, 1, 2]),
        inline: expires_at.is_some(),
        flicker: expires_at.map(|_| 0.0625),
    }
}

fn events() -> [Event; 5] {
    let dropped = BTreeMap::from([("stale".to_owned(), 2)]);
    let balance = Balance {
        ingested: 10,
        delivered: 7,
        absorbed: 1,
        dropped,
        ..Balance::default()
    };
    [
        Event::Ended {
            reason: "end_of_stream".to_owned(),
            ledger: BTreeMap::from([
                ("cuts".to_owned(), Balance::default()),
                ("frames".to_owned(), balance),
            ]),
            records: BTreeMap::from([("captions".to_owned(), 5)]),
        },
        Event::Started {
            uri: "rtmp://127.0.0.1/live/one".to_owned(),
            digest: None,
        },
        Event::Started {
            uri: "file:///film.mp4".to_owned(),
            digest: Some("d1".to_owned()),
        },
        Event::Gap {
            from: EVENT_TIME,
            to: EVENT_TIME + 5,
            reason: "connection reset".to_owned(),
            from_epoch: 1,
            to_epoch: 2,
        },
        Event::Progress {
            complete: 9_000_000_000,
        },
    ]
}
