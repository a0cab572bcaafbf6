//! Holds decoders to what transformers' `generate` makes of prompts: the files that
//! `tests/golden/decoding.py` writes.

use serde_json::Value;

use super::{
    BeamSearchConfig, EarlyStopping, Generation, GenerationConfig, GenerationJob, Penalties,
    TextGenerator, Tokenizer,
};
use crate::models::ModelFolder;
use crate::models::golden::path;

/// A golden of texts.
#[derive(Debug)]
pub(in crate::models) struct Texts {
    /// The prompts, by number.
    pub prompts: Vec<Vec<u32>>,
    /// The tokens that end a text.
    pub ends: Vec<u32>,
    cases: Vec<Case>,
}

/// What a way of writing gives for each prompt.
#[derive(Debug)]
struct Case {
    writing: GenerationConfig,
    texts: Vec<Vec<Vec<u32>>>,
    scores: Vec<Vec<Option<f64>>>,
}

/// A golden file.
pub(in crate::models) fn read(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path("tests/golden").join(file)).unwrap()).unwrap()
}

/// A tokenizer, for networks that have none of their own.
pub(in crate::models) fn tokenizer() -> Tokenizer {
    Tokenizer::load(&ModelFolder::open(path("tests/golden/blip-tiny")).unwrap()).unwrap()
}

/// Writes jobs, given their numbers.
type Write<'a> = &'a dyn Fn(&[usize], &[GenerationJob<'_>]) -> Vec<Vec<Generation>>;

impl Texts {
    pub fn of(golden: &Value) -> Self {
        let from = |value: &Value| serde_json::from_value(value.clone()).unwrap();
        let max_tokens = golden["max_new_tokens"].as_u64().unwrap() as u32;
        let case = |case: &Value| Case {
            writing: writing(&case["options"], max_tokens),
            texts: serde_json::from_value(case["texts"].clone()).unwrap(),
            scores: serde_json::from_value(case["scores"].clone()).unwrap(),
        };
        let cases: Vec<Case> = golden["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(case)
            .collect();
        assert!(!cases.is_empty());
        Self {
            prompts: serde_json::from_value(golden["prompts"].clone()).unwrap(),
            ends: from(&golden["ends"]),
            cases,
        }
    }

    /// A writer that ends where the golden does.
    pub fn writer(&self) -> TextGenerator {
        TextGenerator::new(tokenizer(), self.ends.clone())
    }

    fn job<'a>(&'a self, prompt: usize, case: &'a Case) -> GenerationJob<'a> {
        GenerationJob {
            prompt: &self.prompts[prompt],
            begin: 0,
            writing: &case.writing,
        }
    }

    /// Writes every case, each prompt alone, all prompts in one batch, and all cases of all prompts
    /// in one batch; `write` is given the numbers of the prompts and the jobs.
    pub fn hold(&self, write: Write<'_>) {
        let all: Vec<usize> = (0..self.prompts.len()).collect();
        let (mut numbers, mut jobs) = (Vec::new(), Vec::new());
        for case in &self.cases {
            for &prompt in &all {
                case.compare(
                    prompt,
                    &write(&[prompt], &[self.job(prompt, case)])[0],
                    "alone",
                );
            }
            let together: Vec<GenerationJob<'_>> =
                all.iter().map(|&prompt| self.job(prompt, case)).collect();
            let found = write(&all, &together);
            all.iter()
                .for_each(|&prompt| case.compare(prompt, &found[prompt], "in a ragged batch"));
            numbers.extend_from_slice(&all);
            jobs.extend(together);
        }
        let found = write(&numbers, &jobs);
        for (case, found) in self.cases.iter().zip(found.chunks(all.len())) {
            all.iter()
                .for_each(|&prompt| case.compare(prompt, &found[prompt], "among other cases"));
        }
    }
}

impl Case {
    fn compare(&self, prompt: usize, found: &[Generation], how: &str) {
        let what = format!("{:?}, prompt {prompt} {how}", self.writing);
        let tokens: Vec<&Vec<u32>> = found.iter().map(|text| &text.tokens).collect();
        assert_eq!(
            tokens,
            self.texts[prompt].iter().collect::<Vec<_>>(),
            "{what}"
        );
        for (text, expected) in found.iter().zip(&self.scores[prompt]) {
            match (text.score, expected) {
                (Some(score), Some(expected)) => {
                    assert!(
                        (f64::from(score) - expected).abs() < 1e-3 + 1e-5 * expected.abs(),
                        "{score} {expected}: {what}"
                    );
                }
                (score, expected) => assert_eq!(score.is_some(), expected.is_some(), "{what}"),
            }
        }
    }
}

/// The options of `generate` as ours.
fn writing(options: &Value, max_tokens: u32) -> GenerationConfig {
    let whole = |key: &str, default: u64| options[key].as_u64().unwrap_or(default) as u32;
    let number = |key: &str| options[key].as_f64().unwrap_or(1.) as f32;
    let early = match &options["early_stopping"] {
        Value::Bool(true) => EarlyStopping::First,
        Value::String(never) if never == "never" => EarlyStopping::Never,
        _ => EarlyStopping::Heuristic,
    };
    GenerationConfig {
        max_tokens,
        variants: whole("num_return_sequences", 1),
        penalties: Penalties {
            repetition: number("repetition_penalty"),
            ngram: whole("no_repeat_ngram_size", 0),
            min_tokens: whole("min_new_tokens", 0),
        },
        search: BeamSearchConfig {
            beams: whole("num_beams", 1),
            length_penalty: number("length_penalty"),
            early,
        },
        ..GenerationConfig::default()
    }
}
