//! The stage with a small pipeline of random weights: what it paints, what it passes over, and what
//! its records say.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::cache::{Cache, ObjectStore};
use crate::inference::{BatchSettings, ModelSettings, Models, NetworkOptions, Workers};
use crate::media;
use crate::packet::{Caption, Finish, Label, Packet, PixelFormat, Receipt, Span};
use crate::stage::{Deps, testing};
use crate::stage::{DropPolicy, PendingInput};
use crate::tensor::{DeviceChoice, Precision, PrecisionChoice};

/// A stage, the folder of its pictures, and its workers.
struct Lab {
    stage: Arc<dyn Transform>,
    folder: tempfile::TempDir,
    _workers: Workers,
}

impl Lab {
    async fn new(with: &str) -> Self {
        Self::of(with).await.expect("it is built")
    }

    async fn of(with: &str) -> Result<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = ModelSettings {
            path: format!("{}/tests/golden/sd-tiny", env!("CARGO_MANIFEST_DIR")).into(),
            devices: vec![DeviceChoice::Cpu],
            precision: PrecisionChoice::Fixed(Precision::F32),
            tf32: false,
            options: NetworkOptions::default(),
            memory_limit: None,
            batch: BatchSettings::new(4, Duration::ZERO),
            cache: folder.path().join("sizes"),
        };
        let workers = Workers::new();
        let models = Models::load(
            &BTreeMap::from([("sd".to_owned(), settings)]),
            &workers,
            &CancellationToken::new(),
        )
        .await?;
        let objects = ObjectStore::open(
            &format!("file:{}", folder.path().join("objects").display()),
            1 << 20,
        )?;
        let deps = Arc::new(Deps {
            models,
            cache: Cache::in_memory(1 << 20),
            objects: Some(objects),
            ..Deps::default()
        });
        let small = [
            "model: sd",
            "guidance: 1",
            "format: png",
            "steps: 4",
            "strength: 0.5",
        ];
        let asked = |line: &&str| {
            !line
                .split_once(':')
                .is_some_and(|(key, _)| with.contains(&format!("{key}:")))
        };
        let lines: Vec<&str> = small.into_iter().filter(asked).chain([with]).collect();
        let params = testing::params(&KIND, &lines.join("\n"));
        let open = super::build(&Context {
            origin: &testing::origin("pictures"),
            params: &params,
            deps: &deps,
        })?;
        Ok(Self {
            stage: open(&testing::stream("test")),
            folder,
            _workers: workers,
        })
    }

    /// What it makes of a packet and of what a join has collected for it.
    async fn give(&self, packet: Packet, collected: Vec<Packet>) -> Result<Vec<PacketDraft>> {
        let (pending, drop_policy, mut out) = (
            PendingInput::new(packet, collected, false),
            DropPolicy::default(),
            Emitter::default(),
        );
        let data = pending.data.clone();
        self.stage
            .process(data.into_input(&pending.in_flight, &drop_policy), &mut out)
            .await?;
        Ok(out.drafts)
    }

    async fn pictures(&self, packet: Packet, collected: Vec<Packet>) -> Vec<Arc<Picture>> {
        let drafts = self.give(packet, collected).await.expect("it is painted");
        drafts
            .into_iter()
            .map(|draft| {
                if let Payload::Picture(picture) = draft.payload {
                    picture
                } else {
                    panic!("no picture")
                }
            })
            .collect()
    }
}

fn packet(start: u64, end: u64, payload: Payload) -> Packet {
    Packet {
        head: Arc::new(testing::head(Span::new(start, end))),
        payload,
        receipt: Receipt::none(),
    }
}

fn segment(start: u64, end: u64) -> Packet {
    let segment = crate::packet::Segment {
        index: 0,
        cut: crate::packet::Cut::Hard,
        confidence: 1.0,
        frames: 1,
    };
    packet(start, end, Payload::Segment(Arc::new(segment)))
}

fn caption(text: &str) -> Packet {
    let tags = ["cat", "street", "bus"]
        .map(|name| Label {
            name: name.into(),
            score: 0.5,
        })
        .into();
    let caption = Caption {
        variant: 0,
        text: text.to_owned(),
        language: "en".into(),
        platform: String::new(),
        tags,
        tokens: 1,
        finish: Finish::Stop,
        partial: false,
    };
    packet(0, 100, Payload::Caption(Arc::new(caption)))
}

/// A frame of 16 x 16 at `start`: stripes of `phase` on grey.
fn frame(start: u64, phase: u8) -> Packet {
    let pixels: Vec<u8> = (0..16 * 16 * 3)
        .map(|at: u32| 100 + ((at / 3 + u32::from(phase) * 5) % 16) as u8 * 8)
        .collect();
    let format = PixelFormat::Rgb8;
    let frame = Frame {
        view: "v".into(),
        index: start,
        width: 16,
        height: 16,
        stride: 48,
        format,
        pixels: pixels.into(),
    };
    packet(start, start + 10, Payload::Frame(Arc::new(frame)))
}

#[tokio::test]
async fn a_caption_becomes_a_thumbnail_that_is_painted_once() {
    let lab = Lab::new("prompt: \"{caption} {tags}\"\ntags: 2\n").await;
    let first = lab.pictures(caption("A cat"), vec![]).await.remove(0);
    assert_eq!(
        (
            &*first.role,
            first.width,
            first.height,
            &*first.media_type,
            first.flicker
        ),
        ("thumbnail", 16, 16, "image/png", None)
    );
    assert_eq!(
        media::decode_picture(&first.data).expect("a picture").width,
        16
    );
    let again = lab.pictures(caption("A cat"), vec![]).await.remove(0);
    assert_eq!((&again.uri, &again.data), (&first.uri, &first.data));
    let other = lab.pictures(caption("2 dogs"), vec![]).await.remove(0);
    assert_ne!(other.sha256, first.sha256, "the prompt counts");
    // What the store has lost is painted again, and is the same: the seed decides.
    std::fs::remove_dir_all(lab.folder.path().join("objects/kept")).expect("pictures lie there");
    assert_eq!(
        lab.pictures(caption("A cat"), vec![])
            .await
            .remove(0)
            .sha256,
        first.sha256
    );
    assert!(
        lab.pictures(segment(0, 100), vec![]).await.is_empty(),
        "without a caption there is nothing to say"
    );
}

#[tokio::test]
async fn a_segment_collects_its_captions_and_its_middle_frame() {
    let noise = Lab::new("").await;
    let from_caption = noise
        .pictures(segment(0, 100), vec![caption("A cat")])
        .await
        .remove(0);
    assert!(
        noise
            .pictures(segment(0, 100), vec![frame(0, 1)])
            .await
            .is_empty(),
        "without a caption there is nothing to say"
    );
    let lab = Lab::new("start: frame\n").await;
    let drafts = lab
        .give(
            segment(0, 100),
            vec![caption("A cat"), frame(0, 1), frame(45, 2), frame(90, 3)],
        )
        .await
        .expect("it is painted");
    let expected = [segment(0, 100), caption("A cat"), frame(45, 2)]
        .map(|packet| packet.head.id(packet.payload.kind()));
    assert_eq!(
        drafts[0].parents, expected,
        "its segment, its caption, its middle frame"
    );
    assert_eq!(drafts[0].span, Span::new(0, 100));
    let Payload::Picture(picture) = &drafts[0].payload else {
        panic!("no picture")
    };
    assert_ne!(picture.sha256, from_caption.sha256);
    // A keyframe is as good as a frame.
    let keyframe = Picture {
        data: media::encode_picture(&frame_in(&frame(45, 2)), PictureEncoding::Png)
            .expect("a picture"),
        ..(**picture).clone()
    };
    let from_keyframe = lab
        .pictures(
            segment(0, 100),
            vec![
                caption("A cat"),
                packet(0, 100, Payload::Picture(Arc::new(keyframe))),
            ],
        )
        .await;
    assert_eq!(from_keyframe[0].sha256, picture.sha256);
    assert!(
        lab.pictures(segment(0, 100), vec![caption("A cat")])
            .await
            .is_empty(),
        "a segment without a frame"
    );
}

fn frame_in(packet: &Packet) -> Arc<Frame> {
    if let Payload::Frame(frame) = &packet.payload {
        Arc::clone(frame)
    } else {
        panic!("no frame")
    }
}

#[tokio::test]
async fn frames_follow_one_another_and_near_duplicates_are_absorbed() {
    let lab = Lab::new("prompt: oil\nprevious: 0.5\nskip_similar: 0.98\n").await;
    let first = lab.pictures(frame(0, 0), vec![]).await.remove(0);
    assert_eq!((&*first.role, first.flicker), ("frame", None));
    assert!(
        lab.pictures(frame(10, 0), vec![]).await.is_empty(),
        "the same again"
    );
    let second = lab.pictures(frame(20, 5), vec![]).await.remove(0);
    assert!(
        second
            .flicker
            .is_some_and(|flicker| (0.0..=255.0).contains(&flicker)),
        "{:?}",
        second.flicker
    );
    // After a gap nothing is remembered: a frame is painted as the first was.
    let mut out = Emitter::default();
    lab.stage
        .flush(Flush::Gap, &mut out)
        .await
        .expect("it forgets");
    let alone = lab.pictures(frame(30, 5), vec![]).await.remove(0);
    assert!(
        alone.flicker.is_none() && alone.sha256 != second.sha256,
        "the frame before is not in it"
    );
    let apart = Lab::new("prompt: oil\nprevious: 0\n").await;
    assert_eq!(
        apart.pictures(frame(0, 5), vec![]).await[0].sha256,
        alone.sha256
    );
}

#[tokio::test]
async fn every_picture_of_a_segment_has_the_flicker_of_them_all() {
    let collected = || vec![frame(0, 0), frame(10, 0), frame(20, 5), frame(30, 9)];
    for previous in ["0", "0.4"] {
        let lab = Lab::new(&format!(
            "prompt: oil\nmode: frames\nrole: styled\nprevious: {previous}\n"
        ))
        .await;
        let drafts = lab
            .give(segment(0, 40), collected())
            .await
            .expect("they are painted");
        let spans: Vec<u64> = drafts.iter().map(|draft| draft.span.start).collect();
        assert_eq!(spans, [0, 20, 30], "the second is like the first");
        let flickers: Vec<_> = drafts
            .iter()
            .map(|draft| {
                if let Payload::Picture(picture) = &draft.payload {
                    picture.flicker
                } else {
                    None
                }
            })
            .collect();
        assert!(
            flickers[0].is_some() && flickers.iter().all(|flicker| *flicker == flickers[0]),
            "{flickers:?}"
        );
        assert!(
            lab.pictures(segment(0, 5), vec![frame(0, 0)]).await[0]
                .flicker
                .is_none(),
            "a single picture does not flicker"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_painted_is_refused() {
    let lab = Lab::new("").await;
    let picture = lab.pictures(caption("A cat"), vec![]).await.remove(0);
    let alone = lab
        .give(packet(0, 1, Payload::Picture(picture)), vec![])
        .await;
    assert_eq!(
        alone.expect_err("it is about no segment").kind(),
        crate::error::Kind::Config
    );
    for with in [
        "start: frame\nstrength: 0.1",
        "mode: frames\nsteps: 1",
        "prompt: \"{cation}\"",
    ] {
        let refused = Lab::of(with).await.map(drop).expect_err(with);
        assert_eq!(refused.kind(), crate::error::Kind::Config, "{with}");
    }
    assert!(
        Lab::of("strength: 0.1").await.is_ok(),
        "a thumbnail from noise has no strength"
    );
}
