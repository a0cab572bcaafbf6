//! Every scheduler against diffusers', step by step, over a table of configurations that
//! `tests/golden/schedulers.py` lists.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::schedule::{BetaDefaults, Schedule};
use super::{Scheduler, SchedulerConfig};
use crate::error::Kind as Who;
use crate::models::config::Config;
use crate::models::golden::{goldens, noise, path, relative_error};

const SHAPE: [i64; 4] = [2, 3, 2, 2];

/// As `gaussian` of the script.
fn gaussian(seed: &str) -> Tensor {
    noise(seed, &SHAPE).to_kind(Kind::Float) / 64. - 2.
}

fn runs() -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(path("tests/golden/schedulers.json")).unwrap())
        .unwrap()
}

fn read(config: Value) -> SchedulerConfig {
    SchedulerConfig::read(&Config::of(config)).unwrap()
}

fn refusal(config: Value) -> String {
    SchedulerConfig::read(&Config::of(config))
        .unwrap_err()
        .to_string()
}

/// The next step of the run with the script's network.
fn step(run: &mut dyn Scheduler, index: usize, sample: &Tensor) -> Tensor {
    let output =
        run.scale_model_input(sample).unwrap() * 0.3 + gaussian(&format!("output {index}")) / 2.;
    run.step(&output, sample, &mut || {
        Ok(gaussian(&format!("fresh {index}")))
    })
    .unwrap()
}

#[test]
fn every_step_of_every_scheduler_is_that_of_diffusers() {
    let goldens = goldens("schedulers.safetensors");
    let runs = runs();
    assert!(runs.len() > 100);
    for (number, case) in runs.iter().enumerate() {
        let (steps, strength) = (
            case["steps"].as_u64().unwrap() as usize,
            case["strength"].as_f64().unwrap(),
        );
        let mut run = read(case["config"].clone()).start(steps, strength).unwrap();
        let times: Vec<f64> = serde_json::from_value(case["times"].clone()).unwrap();
        let apart = run
            .timesteps()
            .iter()
            .zip(&times)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0., f64::max);
        assert!(
            run.timesteps().len() == times.len() && apart < 2e-4,
            "run {number}: {:?}, not {times:?}: {case}",
            run.timesteps()
        );
        let sigma = case["sigma"].as_f64().unwrap();
        assert!(
            (run.init_noise_sigma() / sigma - 1.).abs() < 1e-6,
            "run {number}: {} not {sigma}: {case}",
            run.init_noise_sigma()
        );
        let mut sample = if strength == 1. {
            gaussian("start") * run.init_noise_sigma()
        } else {
            run.add_noise(&(gaussian("picture") / 2.), &gaussian("start"))
                .unwrap()
        };
        let expected = &goldens[&number.to_string()];
        for index in 0..=times.len() {
            let error = relative_error(&sample, &expected.get(index as i64));
            assert!(
                error < 1e-4,
                "run {number}, after step {index}: {error}: {case}"
            );
            if index < times.len() {
                sample = step(run.as_mut(), index, &sample);
            }
        }
        let more = run.step(&sample, &sample, &mut || Ok(gaussian("start")));
        assert_eq!(
            more.unwrap_err().kind(),
            Who::Bug,
            "run {number} takes no step more"
        );
    }
}

#[test]
fn every_beta_schedule_is_that_of_diffusers() {
    let goldens = goldens("schedulers.safetensors");
    for name in ["linear", "scaled_linear", "squaredcos_cap_v2"] {
        for zero in [false, true] {
            let mut config = json!({"beta_schedule": name});
            if name == "scaled_linear" {
                (config["beta_start"], config["beta_end"]) = (json!(0.00085), json!(0.012));
            }
            let schedule = Schedule::read(&Config::of(config), BetaDefaults::USUAL, zero).unwrap();
            let found: Vec<f32> = (0..1000)
                .step_by(9)
                .map(|time| schedule.alpha(time).unwrap() as f32)
                .collect();
            let expected =
                Vec::<f32>::try_from(&goldens[&format!("alphas.{name}.{zero}")]).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected,
                    "{name}, {zero}: {found} not {expected}"
                );
            }
        }
    }
}

#[test]
fn generations_do_not_disturb_each_other() {
    let config = read(
        json!({"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "scaled_linear"}),
    );
    let alone = {
        let mut run = config.start(4, 1.).unwrap();
        (0..4).fold(gaussian("start"), |sample, index| {
            step(run.as_mut(), index, &sample)
        })
    };
    let (mut one, mut other) = (
        config.start(4, 1.).unwrap(),
        config.clone().start(4, 1.).unwrap(),
    );
    let (mut first, mut second) = (gaussian("start"), gaussian("other"));
    for index in 0..4 {
        first = step(one.as_mut(), index, &first);
        second = step(other.as_mut(), index, &second);
    }
    assert!(first.equal(&alone) && !second.equal(&alone));
}

#[test]
fn halves_are_stepped_in_f32() {
    let config = read(json!({"_class_name": "EulerDiscreteScheduler"}));
    let sample = gaussian("start");
    let next = |kind| {
        config
            .start(4, 1.)
            .unwrap()
            .step(
                &gaussian("output 0").to_kind(kind),
                &sample,
                &mut || unreachable!(),
            )
            .unwrap()
    };
    assert_eq!(next(Kind::BFloat16).kind(), Kind::Float);
    assert!(
        relative_error(&next(Kind::BFloat16), &next(Kind::Float)) < 1e-6,
        "these outputs are whole in bf16"
    );
}

#[test]
fn what_is_not_supported_is_refused() {
    let unknown = refusal(json!({"_class_name": "UniPCMultistepScheduler"}));
    assert!(
        unknown.contains("UniPCMultistepScheduler") && unknown.contains("EulerDiscreteScheduler"),
        "{unknown}"
    );
    for (class, option, value) in [
        ("DDIMScheduler", "beta_schedule", json!("sigmoid")),
        ("DDIMScheduler", "prediction_type", json!("flow_prediction")),
        ("DDIMScheduler", "timestep_spacing", json!("quadratic")),
        ("DDIMScheduler", "num_train_timesteps", json!(0)),
        ("DDIMScheduler", "beta_end", json!(2.)),
        ("DDIMScheduler", "trained_betas", json!([0.1])),
        ("DDIMScheduler", "sample_weight", json!(3)),
        ("PNDMScheduler", "prediction_type", json!("sample")),
        (
            "EulerAncestralDiscreteScheduler",
            "prediction_type",
            json!("sample"),
        ),
        ("EulerDiscreteScheduler", "use_beta_sigmas", json!(true)),
        ("EulerDiscreteScheduler", "final_sigmas_type", json!("one")),
        (
            "EulerDiscreteScheduler",
            "interpolation_type",
            json!("cubic"),
        ),
        ("EulerDiscreteScheduler", "sigma_min", json!(0)),
        (
            "DPMSolverMultistepScheduler",
            "algorithm_type",
            json!("dpmsolver"),
        ),
        ("DPMSolverMultistepScheduler", "solver_order", json!(4)),
        (
            "DPMSolverMultistepScheduler",
            "variance_type",
            json!("learned"),
        ),
        (
            "DPMSolverMultistepScheduler",
            "use_flow_sigmas",
            json!(true),
        ),
        (
            "DPMSolverMultistepScheduler",
            "lambda_min_clipped",
            json!(9.),
        ),
        ("LCMScheduler", "original_inference_steps", json!(2000)),
    ] {
        let text = refusal(json!({"_class_name": class, option: value}));
        let named = if option == "beta_end" {
            "beta_start"
        } else {
            option
        };
        assert!(text.contains(named), "{option} = {value}: {text}");
    }
    let both = refusal(
        json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "use_exponential_sigmas": true}),
    );
    assert!(both.contains("only one"), "{both}");
}

#[test]
fn options_of_other_schedulers_are_passed_over() {
    // As SDXL-Turbo ships it.
    read(json!({
        "_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.24.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "interpolation_type": "linear",
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "trailing", "trained_betas": null, "use_karras_sigmas": false,
        "something_that_is_off": false
    }));
    // One that UniPC was exchanged for.
    read(json!({
        "_class_name": "DPMSolverMultistepScheduler", "disable_corrector": [], "predict_x0": true, "solver_p": null, "solver_type": "bh2",
        "variance_type": "fixed_small"
    }));
}

#[test]
fn a_run_without_steps_is_refused() {
    let ddim = read(json!({"_class_name": "DDIMScheduler"}));
    for (steps, strength) in [
        (0, 1.),
        (10, 0.),
        (10, 1.1),
        (10, f64::NAN),
        (4, 0.2),
        (1001, 1.),
    ] {
        assert_eq!(
            ddim.start(steps, strength).unwrap_err().kind(),
            Who::Config,
            "{steps} steps at {strength}"
        );
    }
    assert_eq!(ddim.start(4, 0.25).unwrap().timesteps().len(), 1);
    let pndm = read(json!({"_class_name": "PNDMScheduler"}));
    assert!(
        pndm.start(3, 1.)
            .unwrap_err()
            .hint_text()
            .unwrap()
            .contains("skip_prk_steps")
    );
    let lcm = read(json!({"_class_name": "LCMScheduler"}));
    assert!(
        lcm.start(51, 1.)
            .unwrap_err()
            .message()
            .contains("distilled")
    );
    let late = read(json!({"_class_name": "DDIMScheduler", "steps_offset": 1}));
    assert!(
        late.start(1000, 1.)
            .unwrap_err()
            .message()
            .contains("steps_offset")
    );
}
