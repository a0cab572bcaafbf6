//! SmolLM2-135M-Instruct writing 64 tokens after each of one and of eight prompts, greedily, and by
//! four beams after one: new tokens a second from prompt to text, in f32 and in bf16, on two
//! threads. Its peer is transformers' `generate` on the same tokens (`benches/peers/text.py`),
//! which also compares what was written.

mod report;

use std::time::Instant;

use opusflow::models::ModelFolder;
use opusflow::models::networks;
use opusflow::models::text::{
    BeamSearchConfig, CausalLm, Generation, GenerationConfig, Penalties, TextRequest,
};
use opusflow::tensor::{Device, Precision, threads};

/// New tokens of each text; it may not end before.
const TOKENS: u32 = 64;
/// Calls that are timed, after one that is not; the median counts.
const CALLS: usize = 3;

const PROMPTS: [&str; 8] = [
    "Write a caption for a video clip that shows a bicycle, a street and a dog.",
    "Explain in a few paragraphs why the sky is blue.",
    "Name three things that one sees at a harbour.",
    "Write a story about a lighthouse keeper who finds a map in an old book that nobody has \
     opened for a hundred years.",
    "What is a reservoir?",
    "Describe a football match in the rain for somebody who has never seen one.",
    "A 12.5 second clip shows: meadow, rabbit, tree, butterfly, cliff. Write its caption in one \
     sentence.",
    "Tell what a newsreader says about the floods in the valley, day by day.",
];

/// How a bench is called, of how many prompts, and by how many beams.
const WAYS: [(&str, usize, u32); 3] = [("1", 1, 1), ("8", 8, 1), ("1_beams", 1, 4)];

fn request(prompt: &str, beams: u32) -> TextRequest {
    let (penalties, search) = (
        Penalties {
            min_tokens: TOKENS,
            ..Penalties::default()
        },
        BeamSearchConfig {
            beams,
            ..BeamSearchConfig::default()
        },
    );
    let writing = GenerationConfig {
        max_tokens: TOKENS,
        penalties,
        search,
        ..GenerationConfig::default()
    };
    TextRequest {
        prompt: prompt.to_owned(),
        system: None,
        writing,
    }
}

fn write(model: &CausalLm, requests: &[TextRequest]) -> Vec<Vec<Generation>> {
    model.generate(requests, &|_| false).expect("it writes")
}

fn main() {
    // On a thread of its own, as a worker has it: memory comes from another arena there.
    std::thread::spawn(measure)
        .join()
        .expect("it does not panic");
}

fn measure() {
    threads(2);
    let folder =
        ModelFolder::open("models/SmolLM2-135M-Instruct").expect("ops/setup makes the model");
    let models = [("f32", Precision::F32), ("bf16", Precision::BF16)].map(|(name, precision)| {
        (
            name,
            networks::load_causal_lm(&folder, Device::Cpu, precision).expect("the model loads"),
        )
    });
    let shared = report::shared();
    if let Some(shared) = &shared {
        let encode = |prompt: &&str| {
            models[0]
                .1
                .tokenizer()
                .encode_chat(None, prompt)
                .expect("a text")
        };
        let prompts: Vec<Vec<u32>> = PROMPTS.iter().map(encode).collect();
        std::fs::write(
            shared.join("prompts.json"),
            serde_json::to_vec(&prompts).expect("numbers"),
        )
        .expect("it is writable");
    }
    for round in report::rounds() {
        for (precision, model) in &models {
            for (way, rows, beams) in WAYS {
                let requests: Vec<TextRequest> = PROMPTS[..rows]
                    .iter()
                    .map(|prompt| request(prompt, beams))
                    .collect();
                let written: Vec<Vec<u32>> = write(model, &requests)
                    .into_iter()
                    .map(|mut texts| texts.remove(0).tokens)
                    .collect();
                assert!(written.iter().all(|tokens| tokens.len() == TOKENS as usize));
                if let Some(shared) = &shared {
                    let path = shared.join(format!("opusflow_{precision}_{way}.json"));
                    std::fs::write(path, serde_json::to_vec(&written).expect("numbers"))
                        .expect("it is writable");
                }
                let mut seconds: Vec<f64> = (0..CALLS)
                    .map(|_| {
                        let began = Instant::now();
                        let _ = std::hint::black_box(write(model, &requests));
                        began.elapsed().as_secs_f64()
                    })
                    .collect();
                seconds.sort_by(f64::total_cmp);
                let rate = (rows * TOKENS as usize) as f64 / seconds[CALLS / 2];
                report::figure(
                    "text",
                    &format!("opusflow_{precision}_{way}"),
                    round,
                    rate,
                    "tokens/s",
                );
            }
        }
    }
}
