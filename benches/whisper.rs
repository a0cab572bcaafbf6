//! Whisper tiny on 120 s of what the sample film says, in windows of 30 s, on two threads: seconds
//! of sound in a second, from samples to segments, and to words with their times. Its peer is
//! transformers' processor and `generate` on the same sound and weights
//! (`benches/peers/whisper.py`), which also compares the tokens.

mod report;

use std::time::{Duration, Instant};

use opusflow::media::{Options as Opening, SoundView, init, open};
use opusflow::models::ModelFolder;
use opusflow::models::whisper::{
    SAMPLE_RATE, Transcription, TranscriptionOptions, TranscriptionRequest, Whisper,
};
use opusflow::tensor::{Device, Precision, threads};

/// Windows, and their length in seconds.
const WINDOWS: usize = 4;
const LENGTH: usize = 30;
/// What is measured: its name, the precision, whether words are timed, and windows a call.
const MEASURED: [(&str, Precision, bool, usize); 4] = [
    ("words_f32_1", Precision::F32, true, 1),
    ("segments_f32_1", Precision::F32, false, 1),
    ("segments_f32_4", Precision::F32, false, WINDOWS),
    ("segments_bf16_4", Precision::BF16, false, WINDOWS),
];

async fn samples(film: &str) -> Vec<f32> {
    let sound = SoundView {
        name: "sound".into(),
        piece: Duration::from_secs(1),
    };
    let options = Opening {
        views: Vec::new(),
        sounds: vec![sound],
        ..Opening::default()
    };
    let mut opened = open(film, &options).await.expect("the film opens");
    let mut samples = Vec::new();
    while samples.len() < WINDOWS * LENGTH * SAMPLE_RATE {
        samples.extend(
            opened.sounds[0]
                .next()
                .await
                .expect("the film is long enough")
                .audio
                .to_samples(),
        );
    }
    opened.handle.stop().await;
    samples.truncate(WINDOWS * LENGTH * SAMPLE_RATE);
    samples
}

fn main() {
    // On a thread of its own, as a worker has it: memory comes from another arena there.
    std::thread::spawn(measure)
        .join()
        .expect("it does not panic");
}

fn measure() {
    init().expect("GStreamer is there");
    threads(2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let samples = runtime.block_on(samples(&report::film()));
    let folder = ModelFolder::open("models/whisper-tiny").expect("ops/setup makes the model");
    let shared = report::shared();
    if let Some(shared) = &shared {
        let bytes: Vec<u8> = samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        std::fs::write(shared.join("sound.f32"), bytes).expect("the folder can be written");
    }
    for round in report::rounds() {
        for (name, precision, words, together) in MEASURED {
            let model = Whisper::load(&folder, Device::Cpu, precision).expect("the model loads");
            let options = TranscriptionOptions {
                language: Some("en".to_owned()),
                words,
                temperatures: vec![0.],
                compression_ratio: None,
                log_probability: None,
                no_speech: None,
                ..TranscriptionOptions::default()
            };
            let request = |window: &[f32]| TranscriptionRequest {
                samples: window.into(),
                options: options.clone(),
            };
            let windows: Vec<TranscriptionRequest> =
                samples.chunks(LENGTH * SAMPLE_RATE).map(request).collect();
            let write = |windows: &[TranscriptionRequest]| {
                model.transcribe(windows, &|_| false).expect("it runs")
            };
            let _ = write(&[request(&samples[..SAMPLE_RATE])]);
            let began = Instant::now();
            let written: Vec<Transcription> = windows.chunks(together).flat_map(write).collect();
            let factor = (WINDOWS * LENGTH) as f64 / began.elapsed().as_secs_f64();
            report::figure(
                "whisper",
                &format!("opusflow_{name}"),
                round,
                factor,
                "x real time",
            );
            if let Some(shared) = &shared {
                let tokens: Vec<String> = written
                    .iter()
                    .flat_map(|w| &w.segments)
                    .map(|segment| format!("{:?}", segment.tokens))
                    .collect();
                std::fs::write(
                    shared.join(format!("{name}.json")),
                    format!("[{}]", tokens.join(",")),
                )
                .expect("the folder can be written");
            }
        }
    }
}
