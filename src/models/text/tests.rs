//! The generator on its trained weights, against what transformers makes of them.

use super::detokenizer::IncrementalDetokenizer;
use super::*;
use crate::models::ModelFolder;
use crate::models::config::Config;
use crate::models::networks;
use crate::tensor::{Device, Precision};
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;

fn folder() -> ModelFolder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct");
    assert!(
        path.join("model.safetensors").exists(),
        "{} is missing: run ops/setup, which lays the trained weights down there",
        path.display()
    );
    ModelFolder::open(path).unwrap()
}

/// On one thread, as the tests themselves run side by side.
fn load(precision: Precision) -> CausalLm {
    crate::tensor::threads(1);
    networks::load_causal_lm(&folder(), Device::Cpu, precision).unwrap()
}

fn generator() -> CausalLm {
    load(Precision::F32)
}

fn golden() -> &'static Value {
    static GOLDEN: OnceLock<Value> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama-smollm2.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    })
}

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn request(chat: &Value) -> TextRequest {
    TextRequest {
        prompt: chat["prompt"].as_str().unwrap().to_owned(),
        system: chat["system"].as_str().map(str::to_owned),
        writing: GenerationConfig {
            max_tokens: 80,
            ..GenerationConfig::default()
        },
    }
}

fn requests() -> Vec<TextRequest> {
    golden()["chats"]
        .as_array()
        .unwrap()
        .iter()
        .map(request)
        .collect()
}

/// The same request, written in another way.
fn written(request: &TextRequest, change: impl FnOnce(&mut GenerationConfig)) -> TextRequest {
    let mut request = request.clone();
    change(&mut request.writing);
    request
}

/// The only text of each request.
fn generate(
    generator: &CausalLm,
    requests: &[TextRequest],
    cancelled: &dyn Fn(usize) -> bool,
) -> Vec<Generation> {
    let single = |mut texts: Vec<Generation>| {
        assert_eq!(texts.len(), 1);
        texts.remove(0)
    };
    generator
        .generate(requests, cancelled)
        .unwrap()
        .into_iter()
        .map(single)
        .collect()
}

#[test]
fn tokens_and_rendered_chats_are_those_of_transformers() {
    let tokenizer = Tokenizer::load(&folder()).unwrap();
    for hard in golden()["hard"].as_array().unwrap() {
        let text = hard["text"].as_str().unwrap();
        assert_eq!(
            tokenizer.encode(text).unwrap(),
            numbers(&hard["tokens"]),
            "{text:?}"
        );
    }
    for chat in golden()["chats"].as_array().unwrap() {
        let (system, prompt) = (chat["system"].as_str(), chat["prompt"].as_str().unwrap());
        assert_eq!(
            tokenizer.render(system, prompt).unwrap(),
            chat["rendered"].as_str().unwrap()
        );
        assert_eq!(
            tokenizer.encode_chat(system, prompt).unwrap(),
            numbers(&chat["tokens"])
        );
        assert_eq!(
            tokenizer.decode(&numbers(&chat["new"])).unwrap(),
            chat["text"].as_str().unwrap()
        );
    }
}

#[test]
fn greedy_texts_alone_are_those_of_transformers() {
    let generator = generator();
    for (request, chat) in requests()
        .into_iter()
        .zip(golden()["chats"].as_array().unwrap())
    {
        assert_eq!(
            generate(&generator, std::slice::from_ref(&request), &|_| false)[0].tokens,
            numbers(&chat["new"]),
            "{}",
            request.prompt
        );
    }
}

#[test]
fn greedy_texts_in_one_ragged_batch_are_those_of_transformers() {
    let generator = generator();
    let mut requests = requests();
    // One leaves early, so that the others go on in a smaller batch.
    requests.insert(2, written(&requests[0], |writing| writing.max_tokens = 5));
    let generations = generate(&generator, &requests, &|_| false);
    let early = generations[2].clone();
    assert_eq!((early.tokens.len(), early.finish), (5, Finish::Length));
    let rest = [0, 1, 3, 4, 5].map(|n| &generations[n]);
    for (generation, chat) in rest.into_iter().zip(golden()["chats"].as_array().unwrap()) {
        assert_eq!(generation.text, chat["text"].as_str().unwrap());
        assert_eq!(generation.tokens, numbers(&chat["new"]));
        assert_eq!(
            generation.finish,
            if chat["ended"] == true {
                Finish::Stop
            } else {
                Finish::Length
            }
        );
    }
    assert!(generations[0].text.starts_with(&early.text));
}

#[test]
fn beams_are_those_of_transformers_alone_and_in_a_ragged_batch() {
    let (texts, generator) = (
        super::golden::Texts::of(&super::golden::read("llama-smollm2-beams.json")),
        generator(),
    );
    assert_eq!(generator.writer.ends(), texts.ends);
    texts.hold(&|_, jobs| {
        generator
            .network
            .write(&generator.writer, jobs, &|_| false)
            .unwrap()
    });
}

#[test]
fn texts_end_before_a_stop_sequence_and_when_cancelled() {
    let generator = generator();
    let [chat, ..] = golden()["chats"].as_array().unwrap().as_slice() else {
        panic!("no chats")
    };
    let full = chat["text"].as_str().unwrap();
    let stop: String = full.chars().skip(20).take(5).collect();
    let before = &full[..full.find(&stop).unwrap()];
    let asked = std::cell::Cell::new(0);
    let requests = [
        written(&request(chat), |writing| {
            writing.stop = vec!["never written".into(), stop]
        }),
        written(&request(chat), |writing| writing.max_tokens = 0),
        request(chat),
    ];
    let cancelled = |index: usize| {
        asked.set(asked.get() + usize::from(index == 2));
        index == 2 && asked.get() > 3
    };
    let found = generate(&generator, &requests, &cancelled);
    assert_eq!(
        (found[0].text.as_str(), found[0].finish),
        (before, Finish::Stop)
    );
    assert_eq!(
        (
            found[1].text.as_str(),
            found[1].tokens.len(),
            found[1].finish
        ),
        ("", 0, Finish::Length)
    );
    assert_eq!(
        (found[2].tokens.len(), found[2].finish),
        (4, Finish::Length)
    );
    assert!(full.starts_with(&found[2].text));
}

#[test]
fn sampled_texts_depend_on_their_seed_alone() {
    let generator = generator();
    let sampled = |seed, variants| {
        written(&requests()[3], |writing| {
            (writing.max_tokens, writing.variants) = (16, variants);
            writing.sampling = SamplingConfig {
                temperature: 0.8,
                top_p: 0.95,
                seed,
                ..SamplingConfig::default()
            };
        })
    };
    let alone = generator.generate(&[sampled(5, 1)], &|_| false).unwrap();
    let greedy = written(&requests()[0], |writing| writing.max_tokens = 9);
    let beside = generator
        .generate(&[greedy, sampled(5, 3), sampled(6, 1)], &|_| false)
        .unwrap();
    assert_eq!(beside.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 1]);
    assert_eq!(
        alone[0][0], beside[1][0],
        "the first variant is the text that is alone"
    );
    assert_eq!(
        beside[1],
        generator.generate(&[sampled(5, 3)], &|_| false).unwrap()[0]
    );
    let texts: std::collections::BTreeSet<&str> = beside[1]
        .iter()
        .chain(&beside[2])
        .map(|text| text.text.as_str())
        .collect();
    assert_eq!(
        texts.len(),
        4,
        "every variant and every seed has a text of its own"
    );
}

/// In bf16 texts differ from CPU to CPU, as sums are rounded in another order: what is asked for is
/// sense in most of them, not a text.
#[test]
fn bf16_writes_sense() {
    let generator = load(Precision::BF16);
    let questions = [
        ("What is the capital of France?", "Paris"),
        ("What color is the sky on a clear day?", "blue"),
        ("What is 2 + 2?", "4"),
        ("Which animal says meow?", "cat"),
        ("What do bees make?", "honey"),
    ];
    let mut answers = Vec::new();
    let mut right = 0;
    for (question, answer) in questions {
        let request = TextRequest {
            prompt: question.into(),
            ..TextRequest::default()
        };
        let request = written(&request, |writing| writing.max_tokens = 24);
        let found = generate(&generator, &[request], &|_| false);
        right += usize::from(found[0].text.contains(answer));
        answers.push(found[0].text.clone());
    }
    assert!(right >= 3, "{answers:?}");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let generator = generator();
    assert!(generator.generate(&[], &|_| false).unwrap().is_empty());
    let long = TextRequest {
        prompt: "word ".repeat(9000),
        ..TextRequest::default()
    };
    assert!(
        generator
            .check(&long)
            .unwrap_err()
            .message()
            .contains("fills the model's 8192")
    );
    let wild = TextRequest {
        prompt: "hi".into(),
        ..TextRequest::default()
    };
    assert_eq!(
        generator
            .check(&written(&wild, |writing| writing.sampling.top_p = 2.0))
            .unwrap_err()
            .kind(),
        crate::error::Kind::Config
    );
}

#[test]
fn a_character_cut_in_its_bytes_is_left_off() {
    let tokenizer = Tokenizer::load(&folder()).unwrap();
    let whole = tokenizer.encode("done 🧿").unwrap();
    assert_eq!(tokenizer.decode(&whole).unwrap(), "done 🧿");
    assert_eq!(
        tokenizer
            .decode(&whole[..whole.len() - 1])
            .unwrap()
            .trim_end(),
        "done"
    );
    let mut detokenizer = IncrementalDetokenizer::default();
    let mut seen = Vec::new();
    for end in 1..=whole.len() {
        seen.push(detokenizer.read(&tokenizer, &whole[..end]).unwrap().clone());
    }
    assert!(
        seen.iter()
            .all(|text| !text.contains(char::REPLACEMENT_CHARACTER))
    );
    assert_eq!(seen.last().unwrap(), "done 🧿");
}

#[test]
fn ends_are_one_or_many() {
    let ends = |json: Value| token_ids(&Config::of(json), "eos_token_id");
    assert_eq!(ends(serde_json::json!({"eos_token_id": 2})).unwrap(), [2]);
    assert_eq!(
        ends(serde_json::json!({"eos_token_id": [128001, 128009]})).unwrap(),
        [128_001, 128_009]
    );
    assert!(ends(serde_json::json!({})).unwrap().is_empty());
    assert!(ends(serde_json::json!({"eos_token_id": "</s>"})).is_err());
}
