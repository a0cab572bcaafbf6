//! The key of a transcription in the cache: content, weights, precision, device and options, all
//! that the answer depends on. The options are a text of their own and not what `Debug` prints, so
//! that no renaming empties the caches; a test pins it.

use std::fmt::Write;

use crate::cache::Key;
use crate::models::whisper::{TranscriptionOptions, TranscriptionRequest};
use crate::packet::ModelTag;

/// The key of what is answered to `request` by the model of this tag, on this device.
pub(super) fn key(tag: &ModelTag, device: &str, request: &TranscriptionRequest) -> Key {
    let samples: Vec<u8> = request
        .samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    Key::builder("transcribe")
        .part(&tag.revision)
        .part(&tag.precision)
        .part(device)
        .part(options_text(&request.options))
        .part(samples)
        .finish()
}

/// Every option that the answer depends on, by a name that stays. The prompt comes last, as it may
/// hold anything.
fn options_text(options: &TranscriptionOptions) -> String {
    let TranscriptionOptions {
        task,
        language,
        words,
        temperatures,
        compression_ratio,
        log_probability,
        no_speech,
        remember,
        prompt,
        least,
        seed,
    } = options;
    let mut text = format!("task={} words={words} remember={remember}", task.as_str());
    let thresholds = [
        ("compression_ratio", compression_ratio),
        ("log_probability", log_probability),
        ("no_speech", no_speech),
    ];
    for (name, threshold) in thresholds {
        let value = threshold.map_or("none".to_owned(), |value| value.to_string());
        write!(text, " {name}={value}").expect("a String takes any text");
    }
    let temperatures: Vec<String> = temperatures.iter().map(f32::to_string).collect();
    let language = language.as_deref().unwrap_or("any");
    write!(
        text,
        " temperatures={} least={least} seed={seed} language={language} prompt={prompt}",
        temperatures.join(",")
    )
    .expect("a String takes any text");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::whisper::Task;

    /// What is in caches was written under this text: a change of it empties them.
    #[test]
    fn the_options_of_a_key_keep_their_text() {
        assert_eq!(
            options_text(&TranscriptionOptions::default()),
            "task=transcribe words=true remember=false compression_ratio=1.35 log_probability=-1 \
             no_speech=0.6 temperatures=0,0.2,0.4,0.6,0.8,1 least=0 seed=0 language=any prompt="
        );
        let other = TranscriptionOptions {
            task: Task::Translate,
            language: Some("de".to_owned()),
            words: false,
            temperatures: vec![0.],
            compression_ratio: None,
            log_probability: None,
            no_speech: None,
            remember: true,
            prompt: "names, terms".to_owned(),
            least: 0.5,
            seed: 7,
        };
        assert_eq!(
            options_text(&other),
            "task=translate words=false remember=true compression_ratio=none log_probability=none \
             no_speech=none temperatures=0 least=0.5 seed=7 language=de prompt=names, terms"
        );
    }
}
