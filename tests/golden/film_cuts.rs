//! The cuts of the sample film, decoded by GStreamer and found by TransNetV2 online, against the
//! reference implementation's (`film_cuts.json`, `film_cuts.safetensors`, made by `transnetv2.py`).

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use gstreamer::prelude::*;
use gstreamer_app::AppSink;
use opusflow::models::ModelFolder;
use opusflow::models::transnetv2::{TransNetV2, Windows, predictions_to_scenes};
use opusflow::tensor::{Device, Precision, Tensor};

const FRAME: [i64; 3] = [27, 48, 3];

fn path(parts: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(parts)
}

/// Every frame of the film, scaled as a pipeline's 48x27 view is.
fn frames(film: &str) -> Vec<Vec<u8>> {
    let film = path("films").join(film);
    assert!(
        film.exists(),
        "{} is not there: run ops/setup",
        film.display()
    );
    gstreamer::init().unwrap();
    let launch = "filesrc name=film ! qtdemux name=d d.video_0 ! queue ! decodebin ! videoscale ! \
                  videoconvert ! video/x-raw,format=RGB,width=48,height=27 ! appsink name=frames \
                  sync=false max-buffers=64";
    let pipeline = gstreamer::parse::launch(launch)
        .unwrap()
        .downcast::<gstreamer::Pipeline>()
        .unwrap();
    pipeline
        .by_name("film")
        .unwrap()
        .set_property("location", film.to_str().unwrap());
    let sink = pipeline
        .by_name("frames")
        .unwrap()
        .downcast::<AppSink>()
        .unwrap();
    pipeline.set_state(gstreamer::State::Playing).unwrap();
    let mut frames = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        frames.push(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    pipeline.set_state(gstreamer::State::Null).unwrap();
    frames
}

/// The probabilities of a cut at every frame, asked window by window as the frames come.
fn probabilities(network: &TransNetV2, frames: &[Vec<u8>]) -> Vec<f32> {
    let mut windows = Windows::new();
    let mut found = Vec::new();
    let answer = |window: opusflow::models::transnetv2::Window<&[u8]>| {
        let batch = Tensor::from_slice(&window.frames.concat()).view(
            [&[1, window.frames.len() as i64][..], &FRAME]
                .concat()
                .as_slice(),
        );
        let predictions = network.predict(&batch).unwrap().remove(0);
        predictions.single[window.answers()].to_vec()
    };
    for frame in frames {
        found.extend(windows.push(frame.as_slice()).into_iter().flat_map(&answer));
    }
    found.extend(windows.finish().into_iter().flat_map(&answer));
    found
}

#[test]
fn film_is_cut_where_the_reference_cuts_it() {
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path("tests/golden/film_cuts.json")).unwrap())
            .unwrap();
    let expected: Vec<(u64, u64)> = serde_json::from_value(golden["scenes"].clone()).unwrap();
    let frames = frames(golden["film"].as_str().unwrap());
    assert_eq!(frames.len() as u64, golden["frames"].as_u64().unwrap());
    let goldens = Tensor::read_safetensors(path("tests/golden/film_cuts.safetensors")).unwrap();
    let (_, reference) = goldens
        .into_iter()
        .find(|(name, _)| name == "single")
        .unwrap();
    let reference = Vec::<f32>::try_from(reference).unwrap();
    let folder = ModelFolder::open(path("models/transnetv2"))
        .unwrap_or_else(|error| panic!("{error}; run ops/setup"));
    let load = |precision| TransNetV2::load(&folder, Device::Cpu, precision).unwrap();
    let apart = |found: &[f32], reference: &[f32]| {
        let apart = found.iter().zip(reference).map(|(a, b)| (a - b).abs());
        apart.fold(0., f32::max)
    };

    let found = probabilities(&load(Precision::F32), &frames);
    assert_eq!(predictions_to_scenes(&found, 0.5), expected);
    let worst = apart(&found, &reference);
    assert!(worst < 1e-3, "f32: {worst}");

    // A CPU without bf16 of its own computes it a hundred times slower: a part of the film with two
    // cuts must do. It begins where a window does, and its ends are judged with less around them.
    let (part, edge) = (2450..2750, 25);
    let found = probabilities(&load(Precision::BF16), &frames[part.clone()]);
    let (found, reference) = (
        &found[edge..found.len() - edge],
        &reference[part.start + edge..part.end - edge],
    );
    let cuts = |all: &[f32]| all.iter().map(|one| *one > 0.5).collect::<Vec<_>>();
    assert_eq!(cuts(found), cuts(reference), "bf16");
    assert!(cuts(found).contains(&true), "there is a cut to be found");
    let worst = apart(found, reference);
    assert!(worst < 0.05, "bf16: {worst}");
}
