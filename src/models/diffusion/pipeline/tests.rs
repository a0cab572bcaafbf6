//! Whole pipelines against Diffusers': the same pictures to one level of a byte, from seeds alone.

use std::cell::Cell;

use super::*;
use crate::error::Kind as Who;
use crate::models::attention::AttentionKind;
use crate::models::golden::{film, goldens, path};
use tch::Kind;

const PROMPTS: [&str; 2] = [
    "The cat and 2 dogs, in watercolour!",
    "a  bright STREET by night",
];
const NEGATIVE: &str = "blurry text";

fn pipeline(name: &str, options: DiffusionOptions) -> Pipeline {
    let kind = if options.offload {
        AttentionKind::Sliced
    } else {
        AttentionKind::Sdpa
    };
    let folder = ModelFolder::open(path("tests/golden").join(name))
        .unwrap()
        .with_attention(kind);
    Pipeline::load(&folder, Device::Cpu, Precision::F32, options).unwrap()
}

fn request(prompt: usize, steps: usize, guidance: f64, seed: u64) -> DiffusionRequest {
    let prompt = PROMPTS[prompt].to_owned();
    DiffusionRequest {
        prompt,
        negative_prompt: None,
        width: 16,
        height: 16,
        steps,
        guidance,
        seed,
        start: Start::Noise,
    }
}

fn without(negative: &str, request: DiffusionRequest) -> DiffusionRequest {
    DiffusionRequest {
        negative_prompt: Some(negative.to_owned()),
        ..request
    }
}

fn from(frame: i64, strength: f64, request: DiffusionRequest) -> DiffusionRequest {
    let source = Source {
        pixels: film(40, 16, 16).get(frame),
        strength,
        previous: None,
    };
    DiffusionRequest {
        start: Start::Picture(source),
        ..request
    }
}

/// What tests/golden/stable_diffusion.py asks for, by its name there.
fn asked() -> Vec<(&'static str, Vec<DiffusionRequest>)> {
    let wide = Source {
        pixels: film(1, 20, 24).get(0),
        strength: 1.,
        previous: None,
    };
    vec![
        (
            "guided",
            vec![
                without(NEGATIVE, request(0, 4, 7.5, 1)),
                without("", request(1, 4, 7.5, 2)),
            ],
        ),
        (
            "plain",
            vec![request(0, 4, 0., 3), request(1, 4, 0., (1 << 33) + 4)],
        ),
        ("unsaid", vec![request(0, 2, 3., 9)]),
        (
            "from_image",
            [(0, 0, 5), (39, 1, 6)]
                .map(|(frame, prompt, seed)| {
                    from(frame, 0.62, without(NEGATIVE, request(prompt, 5, 5., seed)))
                })
                .into(),
        ),
        (
            "wide",
            vec![DiffusionRequest {
                width: 24,
                height: 20,
                start: Start::Picture(wide),
                ..request(1, 4, 1., 7)
            }],
        ),
    ]
}

fn generate(pipeline: &mut Pipeline, requests: &[DiffusionRequest]) -> Vec<GeneratedPicture> {
    let requests: Vec<&DiffusionRequest> = requests.iter().collect();
    pipeline
        .generate(&requests, &|_| false)
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

/// The largest difference between two pictures, in levels.
fn apart(found: &Tensor, expected: &Tensor) -> i64 {
    assert_eq!(found.size(), expected.size());
    (found.to_kind(Kind::Int) - expected.to_kind(Kind::Int))
        .abs()
        .max()
        .int64_value(&[])
}

#[test]
fn pictures_equal_the_reference() {
    let golden = goldens("stable_diffusion.safetensors");
    for name in ["sd-tiny", "sdxl-tiny"] {
        let mut pipeline = pipeline(name, DiffusionOptions::default());
        for (what, requests) in asked() {
            let expected = &golden[&format!("{name}.{what}")];
            for (at, picture) in generate(&mut pipeline, &requests).iter().enumerate() {
                let worst = apart(&picture.pixels, &expected.get(at as i64));
                assert!(worst <= 1, "{name} {what} {at}: {worst} levels");
            }
        }
    }
}

/// sd-tiny as a latent consistency model, as `consistent` of the golden's script makes it.
fn consistent(folder: &std::path::Path) -> ModelFolder {
    let small = path("tests/golden/sd-tiny");
    for part in ["unet", "scheduler", "vae", "text_encoder", "tokenizer"] {
        std::fs::create_dir(folder.join(part)).unwrap();
        for file in std::fs::read_dir(small.join(part))
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            std::fs::copy(&file, folder.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
    let exchange = |file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(small.join(file)).unwrap();
        assert!(text.contains(from), "{file}");
        std::fs::write(folder.join(file), text.replace(from, to)).unwrap();
    };
    exchange(
        "model_index.json",
        "\"StableDiffusionPipeline\"",
        "\"LatentConsistencyModelPipeline\"",
    );
    exchange(
        "scheduler/scheduler_config.json",
        "\"PNDMScheduler\"",
        "\"LCMScheduler\"",
    );
    exchange(
        "unet/config.json",
        "\"time_cond_proj_dim\": null",
        "\"time_cond_proj_dim\": 6",
    );
    let weights = folder.join("unet/diffusion_pytorch_model.fp16.safetensors");
    let (mut tensors, key) = (
        Tensor::read_safetensors(&weights).unwrap(),
        "time_embedding.cond_proj.weight",
    );
    tensors.push((key.to_owned(), crate::models::golden::weight(key, &[4, 6])));
    Tensor::write_safetensors(&tensors, &weights).unwrap();
    ModelFolder::open(folder).unwrap()
}

#[test]
fn latent_consistency_models_take_the_guidance_as_an_input() {
    let (golden, folder) = (
        goldens("stable_diffusion.safetensors"),
        tempfile::tempdir().unwrap(),
    );
    let mut pipeline = Pipeline::load(
        &consistent(folder.path()),
        Device::Cpu,
        Precision::F32,
        DiffusionOptions::default(),
    )
    .unwrap();
    for (what, requests) in [
        ("plain", vec![request(0, 4, 8., 1), request(1, 4, 8., 2)]),
        ("from_image", vec![from(39, 0.5, request(0, 4, 8., 3))]),
    ] {
        for (at, picture) in generate(&mut pipeline, &requests).iter().enumerate() {
            let worst = apart(
                &picture.pixels,
                &golden[&format!("lcm-tiny.{what}")].get(at as i64),
            );
            assert!(worst <= 1, "{what} {at}: {worst} levels");
        }
    }
}

#[test]
fn saving_memory_changes_no_picture() {
    let golden = goldens("stable_diffusion.safetensors");
    // With slices of attention besides.
    let options = DiffusionOptions {
        vae: VaeOptions {
            slicing: true,
            tiling: false,
        },
        offload: true,
    };
    for name in ["sd-tiny", "sdxl-tiny"] {
        let mut pipeline = pipeline(name, options);
        for (what, requests) in asked().into_iter().take(1) {
            let expected = &golden[&format!("{name}.{what}")];
            for (at, picture) in generate(&mut pipeline, &requests).iter().enumerate() {
                assert!(
                    apart(&picture.pixels, &expected.get(at as i64)) <= 1,
                    "{name} {what}"
                );
            }
        }
    }
}

#[test]
fn halves_paint_a_like_picture() {
    let folder = ModelFolder::open(path("tests/golden/sd-tiny")).unwrap();
    let mut halves = Pipeline::load(
        &folder,
        Device::Cpu,
        Precision::BF16,
        DiffusionOptions::default(),
    )
    .unwrap();
    let (found, expected) = (
        generate(&mut halves, &[request(0, 4, 0., 3)]),
        &goldens("stable_diffusion.safetensors")["sd-tiny.plain"].get(0),
    );
    let similarity = crate::models::golden::cosine(
        &(found[0].pixels.to_kind(Kind::Float) - 127.5),
        &(expected.to_kind(Kind::Float) - 127.5),
    );
    assert!(similarity > 0.99, "{similarity}");
}

#[test]
fn what_goes_together_is_painted_together_and_the_rest_beside_it() {
    let golden = goldens("stable_diffusion.safetensors");
    let mut pipeline = pipeline("sd-tiny", DiffusionOptions::default());
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for (what, group) in asked() {
        expected
            .extend((0..group.len()).map(|at| golden[&format!("sd-tiny.{what}")].get(at as i64)));
        requests.extend(group);
    }
    // A request that cannot be painted spoils no other.
    requests.insert(
        2,
        DiffusionRequest {
            width: 15,
            ..request(0, 2, 1., 1)
        },
    );
    let asked: Vec<&DiffusionRequest> = requests.iter().rev().collect();
    let mut painted = pipeline.generate(&asked, &|_| false).unwrap();
    painted.reverse();
    assert_eq!(painted.remove(2).unwrap_err().kind(), Who::Config);
    for (picture, expected) in painted.into_iter().zip(&expected) {
        assert!(apart(&picture.unwrap().pixels, expected) <= 1);
    }
}

#[test]
fn a_cancelled_picture_leaves_between_steps_and_the_other_stays_the_same() {
    for name in ["sd-tiny", "sdxl-tiny"] {
        let golden = &goldens("stable_diffusion.safetensors")[&format!("{name}.guided")];
        let mut pipeline = pipeline(name, DiffusionOptions::default());
        let requests = asked().swap_remove(0).1;
        let looks = Cell::new(0);
        let cancelled = |index: usize| {
            looks.set(looks.get() + usize::from(index == 0));
            index == 0 && looks.get() > 2
        };
        let mut painted = pipeline
            .generate(&requests.iter().collect::<Vec<_>>(), &cancelled)
            .unwrap();
        assert!(
            apart(&painted.remove(1).unwrap().pixels, &golden.get(1)) <= 1,
            "{name}"
        );
        assert_eq!(painted.remove(0).unwrap_err().kind(), Who::Overload);
        assert_eq!(looks.get(), 3, "it is not asked for again once it has left");
        assert!(
            pipeline
                .generate(&requests.iter().collect::<Vec<_>>(), &|_| true)
                .unwrap()
                .iter()
                .all(Result::is_err)
        );
    }
}

#[test]
fn the_frame_before_stays_in_the_next() {
    let mut pipeline = pipeline("sd-tiny", DiffusionOptions::default());
    let with = |previous| {
        let source = Source {
            pixels: film(40, 16, 16).get(39),
            strength: 0.5,
            previous,
        };
        DiffusionRequest {
            start: Start::Picture(source),
            ..request(0, 2, 0., 4)
        }
    };
    let before = generate(&mut pipeline, &[from(0, 0.5, request(0, 2, 0., 4))])
        .remove(0)
        .latents;
    let alone = generate(&mut pipeline, &[with(None)]).remove(0).latents;
    let mut distances = Vec::new();
    for part in [0., 0.3, 0.6, 1.] {
        let blended = generate(&mut pipeline, &[with(Some((before.shallow_clone(), part)))])
            .remove(0)
            .latents;
        distances.push((blended - &alone).norm().double_value(&[]));
    }
    assert_eq!(distances[0], 0., "no part of it, no change");
    assert!(
        distances.is_sorted_by(|one, next| one < next),
        "the larger its part, the further from the frame alone: {distances:?}"
    );
    let wrong = with(Some((before.narrow(1, 0, 3), 0.5)));
    assert_eq!(pipeline.check(&wrong).unwrap_err().kind(), Who::Model);
}

#[test]
fn prompts_are_kept_up_to_a_limit() {
    let mut pipeline = pipeline("sd-tiny", DiffusionOptions::default());
    generate(&mut pipeline, &[without(NEGATIVE, request(0, 1, 2., 1))]);
    let input = |text: &str| prompts::PromptInput::Text(text.to_owned());
    assert_eq!(
        pipeline.prompts.cached(),
        [&input(NEGATIVE), &input(PROMPTS[0])]
    );
    // The one used last stays longest.
    generate(&mut pipeline, &[without(NEGATIVE, request(1, 1, 2., 1))]);
    assert_eq!(
        pipeline.prompts.cached(),
        [&input(PROMPTS[0]), &input(NEGATIVE), &input(PROMPTS[1])]
    );
    pipeline.prompts.limit_to(1);
    generate(&mut pipeline, &[request(0, 1, 0., 1)]);
    assert_eq!(
        pipeline.prompts.cached(),
        [&input(PROMPTS[0])],
        "what is in use stays whatever the limit"
    );
    pipeline.clear_prompt_cache();
    assert!(pipeline.prompts.cached().is_empty());
}

#[test]
fn what_cannot_be_painted_says_why() {
    let pipeline = pipeline("sd-tiny", DiffusionOptions::default());
    assert_eq!((pipeline.factor(), pipeline.size()), (2, 16));
    for (request, word) in [
        (
            DiffusionRequest {
                height: 0,
                ..request(0, 4, 1., 1)
            },
            "16x0",
        ),
        (
            DiffusionRequest {
                steps: 0,
                ..request(0, 4, 1., 1)
            },
            "0 steps",
        ),
        (
            DiffusionRequest {
                guidance: f64::NAN,
                ..request(0, 4, 1., 1)
            },
            "NaN",
        ),
        (from(0, 0.1, request(0, 4, 1., 1)), "leave none"),
        (from(0, 1.5, request(0, 4, 1., 1)), "1.5"),
    ] {
        let error = pipeline.check(&request).unwrap_err();
        assert!(
            error.kind() == Who::Config && error.message().contains(word),
            "{error}"
        );
    }
    let grey = Source {
        pixels: film(40, 16, 16).get(0).select(2, 0),
        strength: 0.5,
        previous: None,
    };
    assert_eq!(
        pipeline
            .check(&DiffusionRequest {
                start: Start::Picture(grey),
                ..request(0, 4, 1., 1)
            })
            .unwrap_err()
            .kind(),
        Who::Model
    );
    let folder = ModelFolder::open(path("tests/golden/sd-tiny/unet")).unwrap();
    let error = Pipeline::load(
        &folder,
        Device::Cpu,
        Precision::F32,
        DiffusionOptions::default(),
    )
    .unwrap_err();
    assert!(
        error
            .message()
            .contains("no pipeline here is called UNet2DConditionModel"),
        "{error}"
    );
}
