//! Whisper against transformers': a random model in small, step by step; Whisper tiny on the sound
//! of the sample film.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::decode::DecodeRequest;
use super::network::Network;
use super::*;
use crate::models::Config;
use crate::models::attention::KeyValue;
use crate::models::decoder::{Cache, Decoder};
use crate::models::golden::{cosine, goldens, noise, path, relative_error, trained, weights};
use crate::tensor::Tensor;
use crate::tensor::{Device, Precision};

/// As `sound` in tests/golden/whisper.py.
fn sound(seed: &str, count: usize) -> Vec<f32> {
    let bytes: Vec<u8> = Vec::try_from(noise(seed, &[count as i64])).unwrap();
    let loud = [0.5, 0.03125, 1., 0.125];
    bytes
        .into_iter()
        .enumerate()
        .map(|(at, byte)| (f32::from(byte) - 127.5) / 128. * loud[at / 4000 % 4])
        .collect()
}

fn small_tokens(config: &WhisperConfig) -> SpecialTokens {
    let json = json!({"decoder_start_token_id": 101, "eos_token_id": 100, "no_timestamps_token_id": 111,
        "lang_to_id": {"<|en|>": 102, "<|de|>": 103, "<|fr|>": 104, "<|ja|>": 105}, "task_to_id": {"translate": 106, "transcribe": 107},
        "suppress_tokens": [3, 5, 7, 31, 146, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110], "begin_suppress_tokens": [20, 100],
        "max_initial_timestamp_index": 10, "alignment_heads": [[1, 0], [2, 1], [2, 3]]});
    SpecialTokens::read(&Config::of(json), config).unwrap()
}

fn small(precision: Precision) -> Network {
    let json = json!({"vocab_size": 163, "num_mel_bins": 80, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48, "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "max_source_positions": 50,
        "max_target_positions": 72});
    let config = WhisperConfig::read(&Config::of(json)).unwrap();
    let tokens = small_tokens(&config);
    Network::load(weights("whisper.json", "small", precision), config, tokens).unwrap()
}

fn encoded(network: &Network) -> Tensor {
    let spectrograms =
        ["one", "two"].map(|seed| network.spectrogram(&sound(seed, SAMPLE_RATE)).unwrap());
    network
        .encoder
        .forward(&Tensor::stack(&spectrograms, 0))
        .unwrap()
}

/// What its text decoder attends to, for `models::network_conformance`: its texts are numbers.
pub(in crate::models) fn outputs(precision: Precision) -> Vec<Tensor> {
    let network = small(precision);
    let spectrogram = network.spectrogram(&sound("one", SAMPLE_RATE)).unwrap();
    let audio = network.encode(&[(&spectrogram, 0)]).unwrap();
    audio
        .layers()
        .iter()
        .flat_map(|KeyValue { keys, values }| [keys.shallow_clone(), values.shallow_clone()])
        .collect()
}

/// A text about each window, in German.
fn requests(network: &Network) -> Vec<DecodeRequest> {
    let request = DecodeRequest {
        prompt: vec![101, 103, 107],
        before: 0,
        frames: network.config.frames(),
        temperature: 0.,
        seed: 0,
    };
    vec![request.clone(), request]
}

fn tokens(tensor: &Tensor) -> Vec<u32> {
    Vec::<i64>::try_from(tensor)
        .unwrap()
        .into_iter()
        .map(|token| token as u32)
        .collect()
}

#[test]
fn spectrograms_are_those_of_transformers() {
    let goldens = goldens("whisper.safetensors");
    for bands in [80, 128] {
        let found = mel::Mel::build(bands, Device::Cpu)
            .unwrap()
            .forward(&sound("mel", 15_970))
            .unwrap();
        let error = relative_error(&found, &goldens[&format!("mel.{bands}")]);
        assert!(error < 1e-5, "{bands}: {error}");
    }
}

#[test]
fn encoder_gives_what_that_of_transformers_gives() {
    let expected = &goldens("whisper.safetensors")["encoded"];
    let error = relative_error(&encoded(&small(Precision::F32)), expected);
    assert!(error < 1e-4, "{error}");
    let similarity = cosine(&encoded(&small(Precision::BF16)), expected);
    assert!(similarity > 0.99, "bf16: {similarity}");
}

#[test]
fn decoder_gives_the_logits_of_transformers_at_once_and_step_by_step() {
    let goldens = goldens("whisper.safetensors");
    let check = |precision| {
        let network = small(precision);
        let audio = network.decoder.audio(&encoded(&network)).unwrap();
        let decoder = network.decoder.over(&audio, false);
        let texts = [0, 1].map(|row| Vec::<i64>::try_from(goldens["tokens"].get(row)).unwrap());
        let prompts = [&texts[0][..3], &texts[1][..3]];
        let (mut cache, hidden) = decoder.start_whole(&prompts, 2).unwrap();
        let mut rows: Vec<Tensor> = (0..3)
            .map(|at| decoder.logits(&hidden.select(1, at)).unwrap())
            .collect();
        for (&first, &second) in texts[0].iter().zip(&texts[1]).skip(3) {
            rows.push(decoder.step(&mut cache, &[first, second]).unwrap());
        }
        Tensor::stack(&rows, 1)
    };
    let error = relative_error(&check(Precision::F32), &goldens["logits"]);
    assert!(error < 1e-4, "{error}");
    let similarity = cosine(&check(Precision::BF16), &goldens["logits"]);
    assert!(similarity > 0.99, "bf16: {similarity}");
}

#[test]
fn prompts_of_any_length_and_several_texts_a_window_are_as_alone() {
    let (goldens, network) = (goldens("whisper.safetensors"), small(Precision::F32));
    let audio = network.decoder.audio(&encoded(&network)).unwrap();
    let texts = [0, 1].map(|row| Vec::<i64>::try_from(goldens["tokens"].get(row)).unwrap());
    let decoder = network.decoder.over(&audio, true);
    let (mut cache, logits) = decoder.start(&[&texts[0][..5], &texts[1][..3]], 8).unwrap();
    let expected = |row: i64, at: i64| goldens["logits"].get(row).get(at);
    let check = |found: &Tensor, expected: &Tensor| {
        let error = relative_error(found, expected);
        assert!(error < 1e-4, "{error}");
    };
    check(&logits.get(0), &expected(0, 4));
    check(&logits.get(1), &expected(1, 2));
    // As beams go on: two texts about each window, then one about the second.
    cache.keep(&[0, 0, 1, 1]).unwrap();
    let next = [texts[0][5], texts[0][6], texts[1][3], texts[1][4]];
    let logits = decoder.step(&mut cache, &next).unwrap();
    check(&logits.get(0), &expected(0, 5));
    check(&logits.get(2), &expected(1, 3));
    cache.keep(&[2]).unwrap();
    let logits = decoder.step(&mut cache, &[texts[1][4]]).unwrap();
    check(&logits.get(0), &expected(1, 4));
    let attention = network.decoder.attention(&cache, 0, 5..7).unwrap();
    assert_eq!(attention.size(), [3, 2, 50]);
}

#[test]
fn greedy_texts_and_their_times_are_those_of_transformers() {
    let (goldens, network) = (goldens("whisper.safetensors"), small(Precision::F32));
    let audio = network.decoder.audio(&encoded(&network)).unwrap();
    let written = network
        .decode(&audio, &requests(&network), true, &|_| false)
        .unwrap();
    for (row, text) in written.iter().enumerate() {
        assert_eq!(
            text.tokens,
            tokens(&goldens["written"].get(row as i64)),
            "row {row}"
        );
        let times: Vec<f64> = Vec::try_from(goldens["times"].get(row as i64)).unwrap();
        assert_eq!(text.times.len(), times.len());
        let apart = text
            .times
            .iter()
            .zip(&times)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0., f64::max);
        assert!(apart < 1e-6, "row {row}: {:?} is not {times:?}", text.times);
        let expected = goldens[&format!("log_probability.{row}")].double_value(&[0]);
        let found = f64::from(text.log_probabilities.iter().sum::<f32>())
            / text.log_probabilities.len() as f64;
        assert!(
            (found - expected).abs() < 1e-4 * expected.abs(),
            "row {row}: {found} is not {expected}"
        );
        let expected = goldens["no_speech"].double_value(&[row as i64]);
        assert!((f64::from(text.no_speech) - expected).abs() < 1e-4 * expected);
    }
}

#[test]
fn languages_are_those_of_transformers() {
    let (goldens, network) = (goldens("whisper.safetensors"), small(Precision::F32));
    let audio = network.decoder.audio(&encoded(&network)).unwrap();
    for (row, (code, probability)) in network.languages(&audio).unwrap().into_iter().enumerate() {
        let (most, which) = goldens["languages"].get(row as i64).max_dim(0, false);
        assert_eq!(
            code,
            ["en", "de", "fr", "ja"][which.int64_value(&[]) as usize]
        );
        assert!((f64::from(probability) - most.double_value(&[])).abs() < 1e-5);
    }
}

#[test]
fn texts_that_are_cancelled_leave_the_others_as_they_are() {
    let network = small(Precision::F32);
    let audio = network.decoder.audio(&encoded(&network)).unwrap();
    let whole = network
        .decode(&audio, &requests(&network), true, &|_| false)
        .unwrap();
    let asked = std::cell::Cell::new(0);
    let cancelled = |place: usize| {
        asked.set(asked.get() + 1);
        place == 0 && asked.get() > 20
    };
    let cut = network
        .decode(&audio, &requests(&network), true, &cancelled)
        .unwrap();
    assert_eq!(
        (&cut[1].tokens, &cut[1].times),
        (&whole[1].tokens, &whole[1].times)
    );
    assert!(
        cut[0].tokens.len() < whole[0].tokens.len() && whole[0].tokens.starts_with(&cut[0].tokens)
    );
}

fn whisper() -> Whisper {
    Whisper::load(&trained("whisper-tiny"), Device::Cpu, Precision::F32).unwrap()
}

/// The sample film's sound, decoded as for the goldens.
pub(in crate::models) fn film() -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let (film, file) = (
        path("films/wannaworktogether.mp4"),
        folder.path().join("sound"),
    );
    let film = std::env::var_os("OPUSFLOW_TEST_FILM").map_or(film, PathBuf::from);
    let pipeline = format!(
        "-q filesrc location={} ! qtdemux ! audio/mpeg ! aacparse ! avdec_aac ! audioconvert ! \
         audioresample ! audio/x-raw,format=F32LE,rate=16000,channels=1,layout=interleaved ! \
         filesink location={}",
        film.display(),
        file.display()
    );
    let status = Command::new("gst-launch-1.0")
        .args(pipeline.split(' '))
        .status()
        .unwrap();
    assert!(
        status.success(),
        "{} is not decoded; run ops/setup",
        film.display()
    );
    let bytes = std::fs::read(file).unwrap();
    bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}

fn window(
    samples: &[f32],
    start: f64,
    end: f64,
    options: TranscriptionOptions,
) -> TranscriptionRequest {
    let at = |seconds: f64| ((seconds * SAMPLE_RATE as f64) as usize).min(samples.len());
    TranscriptionRequest {
        samples: samples[at(start)..at(end)].into(),
        options,
    }
}

/// As transformers' without thresholds.
fn plain(language: Option<&str>, task: Task) -> TranscriptionOptions {
    TranscriptionOptions {
        task,
        language: language.map(str::to_owned),
        temperatures: vec![0.],
        compression_ratio: None,
        log_probability: None,
        no_speech: None,
        ..TranscriptionOptions::default()
    }
}

fn near(found: f64, expected: &Value, most: f64) -> bool {
    (found - expected.as_f64().unwrap()).abs() < most
}

#[test]
fn the_films_transcript_is_that_of_transformers() {
    let (whisper, samples) = (whisper(), film());
    let text = std::fs::read_to_string(path("tests/golden/whisper-film.json")).unwrap();
    let windows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let requests = windows.iter().map(|golden| {
        let asked = &golden["asked"];
        let task = if asked["task"] == "translate" {
            Task::Translate
        } else {
            Task::Transcribe
        };
        let prompt = asked["prompt"].as_str().unwrap_or("").to_owned();
        let options = TranscriptionOptions {
            prompt,
            remember: asked["remember"] == true,
            ..plain(asked["language"].as_str(), task)
        };
        window(
            &samples,
            golden["start"].as_f64().unwrap(),
            golden["end"].as_f64().unwrap(),
            options,
        )
    });
    let requests: Vec<TranscriptionRequest> = requests.collect();
    let found = whisper.transcribe(&requests, &|_| false).unwrap();
    for (golden, found) in windows.iter().zip(found) {
        let place = &golden["start"];
        assert_eq!(found.language, golden["language"].as_str().unwrap());
        let given = golden["asked"]["language"].is_string();
        assert!(if given {
            found.language_probability == 1.
        } else {
            (0.05..1.).contains(&found.language_probability)
        });
        let segments = golden["segments"].as_array().unwrap();
        for (found, golden) in found.segments.iter().zip(segments) {
            let tokens: Vec<u32> = golden["tokens"]
                .as_array()
                .unwrap()
                .iter()
                .map(|token| token.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(found.tokens, tokens, "{place}: {}", found.text);
            assert_eq!(
                found.text,
                golden["text"]
                    .as_str()
                    .unwrap()
                    .trim_matches([' ', '\u{fffd}']),
                "{place}"
            );
            assert!(
                near(found.start, &golden["start"], 0.006)
                    && near(found.end, &golden["end"], 0.006),
                "{place}: {found:?}"
            );
            assert!(
                near(
                    f64::from(found.log_probability),
                    &golden["log_probability"],
                    1e-3
                ),
                "{place}: {}",
                found.log_probability
            );
            assert!(
                near(
                    f64::from(found.compression_ratio),
                    &golden["compression_ratio"],
                    1e-3
                ),
                "{}",
                found.compression_ratio
            );
            let words = golden["words"].as_array().unwrap();
            let texts: Vec<&str> = words
                .iter()
                .map(|word| word[0].as_str().unwrap().trim())
                .collect();
            assert_eq!(
                found
                    .words
                    .iter()
                    .map(|word| word.text.as_str())
                    .collect::<Vec<_>>(),
                texts,
                "{place}"
            );
            let late = found.words.iter().zip(words).filter(|(found, word)| {
                !near(found.start, &word[1], 0.03) || !near(found.end, &word[2], 0.03)
            });
            assert_eq!(
                late.count(),
                0,
                "{place}: {:?} is not {words:?}",
                found.words
            );
            assert!(
                found
                    .words
                    .iter()
                    .all(|word| word.probability > 0. && word.probability <= 1.)
            );
        }
        assert_eq!(found.segments.len(), segments.len(), "{place}");
    }
}

#[test]
fn a_window_is_as_alone_whatever_is_beside_it() {
    let (whisper, samples) = (whisper(), film());
    let requests = [
        window(&samples, 60., 70., plain(Some("en"), Task::Transcribe)),
        window(&samples, 120., 122., plain(Some("en"), Task::Transcribe)),
    ];
    let together = whisper.transcribe(&requests, &|_| false).unwrap();
    for (request, found) in requests.iter().zip(together) {
        let alone = whisper
            .transcribe(std::slice::from_ref(request), &|_| false)
            .unwrap()
            .remove(0);
        let texts = |of: &Transcription| {
            of.segments
                .iter()
                .map(|segment| segment.tokens.clone())
                .collect::<Vec<_>>()
        };
        assert!(!alone.segments.is_empty());
        assert_eq!(texts(&found), texts(&alone));
    }
}

#[test]
fn doubtful_texts_are_written_again_and_drawn_by_the_seed() {
    let (whisper, samples) = (whisper(), film());
    let options = TranscriptionOptions {
        log_probability: Some(-0.01),
        temperatures: vec![0., 0.4],
        words: false,
        ..plain(Some("en"), Task::Transcribe)
    };
    let transcribe = |options: &TranscriptionOptions| {
        let request = window(&samples, 62., 68., options.clone());
        whisper
            .transcribe(&[request], &|_| false)
            .unwrap()
            .remove(0)
            .segments
    };
    let warm = transcribe(&options);
    assert!(
        warm.iter().all(|segment| segment.temperature == 0.4),
        "no text is that sure"
    );
    assert_eq!(
        warm,
        transcribe(&options),
        "the same seed draws the same text"
    );
    let sure = transcribe(&TranscriptionOptions {
        log_probability: Some(-1.),
        ..options.clone()
    });
    assert!(
        !sure.is_empty() && sure.iter().all(|segment| segment.temperature == 0.),
        "what is sure enough is kept"
    );
    let seeds = (1..6).map(|seed| {
        transcribe(&TranscriptionOptions {
            seed,
            temperatures: vec![1.],
            ..options.clone()
        })
    });
    assert!(
        seeds
            .map(|segments| segments
                .iter()
                .map(|s| s.tokens.clone())
                .collect::<Vec<_>>())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
            > 1
    );
    let silent = transcribe(&TranscriptionOptions {
        no_speech: Some(0.),
        ..options.clone()
    });
    assert!(
        silent.is_empty(),
        "a doubtful text where nobody speaks is left out"
    );
}

#[test]
fn what_repeats_itself_is_doubtful() {
    let (whisper, samples) = (whisper(), film());
    let options = TranscriptionOptions {
        compression_ratio: Some(1.35),
        temperatures: vec![0., 1.],
        words: false,
        ..plain(Some("ja"), Task::Transcribe)
    };
    let request = |options: &TranscriptionOptions| window(&samples, 30., 38., options.clone());
    let repeats = TranscriptionOptions {
        compression_ratio: None,
        ..options.clone()
    };
    let found = whisper
        .transcribe(&[request(&options), request(&repeats)], &|_| false)
        .unwrap();
    assert!(
        found[1].segments[0].compression_ratio > 10.,
        "English taken for Japanese goes round in circles"
    );
    assert!(
        found[0]
            .segments
            .iter()
            .all(|segment| segment.temperature == 1.),
        "{:?}",
        found[0].segments
    );
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let whisper = whisper();
    let request = |samples: usize, options: TranscriptionOptions| TranscriptionRequest {
        samples: vec![0.; samples].into(),
        options,
    };
    let refused = |request: &TranscriptionRequest| {
        whisper
            .transcribe(std::slice::from_ref(request), &|_| false)
            .unwrap_err()
    };
    let unknown = refused(&request(16_000, plain(Some("tlh"), Task::Transcribe)));
    assert!(unknown.to_string().contains("`tlh`"), "{unknown}");
    assert!(
        refused(&request(480_001, TranscriptionOptions::default()))
            .message()
            .contains("30 s")
    );
    let no_number = TranscriptionRequest {
        samples: vec![f32::NAN; 16_000].into(),
        options: TranscriptionOptions::default(),
    };
    assert!(refused(&no_number).message().contains("no numbers"));
    assert!(
        refused(&request(
            16_000,
            TranscriptionOptions {
                temperatures: Vec::new(),
                ..TranscriptionOptions::default()
            }
        ))
        .message()
        .contains("temperatures")
    );
    let little = whisper
        .transcribe(&[request(3, plain(None, Task::Transcribe))], &|_| false)
        .unwrap();
    assert_eq!(little.len(), 1, "few samples are no error");
}
