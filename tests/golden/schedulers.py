"""Makes the golden files of the schedulers and of their noise with diffusers, the reference.

    pip install torch==2.11.0 diffusers==0.42.1 numpy safetensors
    python tests/golden/schedulers.py

schedulers.json lists runs: a scheduler_config.json, how many steps, at which strength. schedulers.safetensors holds of each the times, the
deviation of the first noise, and the sample after every step. The network is a formula: 0.3 times what it is shown, and some noise. Noise,
the scheduler's own too, is by formula as well. diffusion_noise.safetensors holds numbers of torch's generator.
"""

import inspect
import itertools
import json
from pathlib import Path

import diffusers
import diffusers.utils.torch_utils
import numpy as np
import torch
from safetensors.torch import save_file

from formula import noise

HERE = Path(__file__).parent
SHAPE = (2, 3, 2, 2)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
V = {"prediction_type": "v_prediction"}


def gaussian(seed):
    """Numbers about as large as noise: bytes from -2 to 2."""
    return torch.from_numpy(noise(seed, SHAPE).astype(np.float32) / 64 - 2)


def table():
    """(class, configuration, steps, strength)"""
    spacings = ("linspace", "leading", "trailing")
    for name, kinds in (
        ("DDIM", ("epsilon", "v_prediction", "sample")), ("PNDM", ("epsilon", "v_prediction")),
        ("EulerDiscrete", ("epsilon", "v_prediction", "sample")), ("EulerAncestralDiscrete", ("epsilon", "v_prediction")),
        ("DPMSolverMultistep", ("epsilon", "v_prediction", "sample")),
    ):
        for kind, spacing in itertools.product(kinds, spacings):
            more = {"clip_sample": False} if name == "DDIM" else {"skip_prk_steps": True} if name == "PNDM" else {}
            yield name, {**SD, **more, "prediction_type": kind, "timestep_spacing": spacing, "steps_offset": 1}, 6, 1
        yield name, {**SD, **more, "timestep_spacing": "leading", "steps_offset": 1}, 10, 0.55
    yield from (("LCM", {"prediction_type": kind}, 4, 1) for kind in ("epsilon", "v_prediction", "sample"))
    yield "LCM", {}, 7, 0.6
    yield "LCM", {"original_inference_steps": 40, "clip_sample": True, "clip_sample_range": 0.9, "timestep_scaling": 1.5}, 1, 1
    yield "LCM", {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8, "rescale_betas_zero_snr": True, **V}, 3, 1
    # Betas, and what follows from none of the picture being left at the last time.
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **V}
    trained = {"num_train_timesteps": 20, "trained_betas": np.linspace(0.01, 0.3, 20).round(3).tolist(), "timestep_spacing": "linspace"}
    for name in ("DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep"):
        yield from ((name, {**betas, **zero}, 5, 1) for betas in (SD, COSINE))
    for name in ("DDIM", "PNDM", "EulerDiscrete", "DPMSolverMultistep"):
        yield from ((name, betas, 5, 1) for betas in ({}, COSINE, {**trained, "skip_prk_steps": True}))
    yield "DDIM", {**SD, "set_alpha_to_one": False, "clip_sample_range": 0.5, **V}, 5, 1
    yield "DDIM", {"num_train_timesteps": 300, "thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.7}, 7, 1
    yield from (("PNDM", {**SD, "set_alpha_to_one": True, "skip_prk_steps": False, "prediction_type": kind}, 6, 1) for kind in ("epsilon", "v_prediction"))
    yield from (("PNDM", {**SD, "skip_prk_steps": True, "steps_offset": 1}, steps, 1) for steps in (1, 2, 13))
    yield "PNDM", {**SD, "timestep_spacing": "linspace"}, 9, 0.7
    # Sigmas.
    for last in ("zero", "sigma_min"):
        yield from (("EulerDiscrete", {**SD, field: True, "final_sigmas_type": last}, 5, 1) for field in ("use_karras_sigmas", "use_exponential_sigmas"))
        yield from (
            ("DPMSolverMultistep", {**SD, field: True, "final_sigmas_type": last}, 6, 1)
            for field in ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas")
        )
    yield "EulerDiscrete", {**SD, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.0}, 4, 1
    yield "EulerDiscrete", {**SD, "use_karras_sigmas": True, "timestep_type": "continuous", **V}, 4, 0.75
    yield "EulerDiscrete", {**SD, "interpolation_type": "log_linear", "timestep_spacing": "trailing"}, 4, 1
    yield "EulerDiscrete", {**SD, "timestep_spacing": "trailing"}, 1, 1
    yield "EulerAncestralDiscrete", {**SD, "timestep_spacing": "trailing"}, 1, 1
    # Solvers.
    dpm = "DPMSolverMultistep"
    for algorithm, order, solver in itertools.product(("dpmsolver++", "sde-dpmsolver++"), (1, 2, 3), ("midpoint", "heun")):
        yield dpm, {**SD, "algorithm_type": algorithm, "solver_order": order, "solver_type": solver, "final_sigmas_type": "sigma_min"}, 7, 1
    yield dpm, {**SD, "solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, 5, 1
    yield dpm, {**SD, "solver_order": 3, "lower_order_final": False, "euler_at_final": True, "final_sigmas_type": "sigma_min"}, 5, 1
    yield dpm, {**SD, "solver_order": 3}, 17, 0.5
    yield dpm, {**COSINE, "lambda_min_clipped": -5.1, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}, 5, 1
    yield from ((dpm, {**COSINE, "lambda_min_clipped": -5.1, "timestep_spacing": spacing}, 5, 1) for spacing in spacings)
    yield dpm, {**SD, "thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8}, 5, 1
    yield dpm, {**SD, "algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"}, 5, 1


def run(name, config, steps, strength):
    """Times, the first noise's deviation, and the samples, as diffusers' pipelines drive it."""
    scheduler = getattr(diffusers, name + "Scheduler").from_config(config)
    scheduler.set_timesteps(steps)
    start = max(steps - min(int(steps * strength), steps), 0)
    times = scheduler.timesteps[start:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    sigma = float(scheduler.init_noise_sigma)
    if strength == 1:
        sample = gaussian("start") * sigma
    else:
        sample = scheduler.add_noise(gaussian("picture") / 2, gaussian("start"), times[:1])
    samples = [sample]
    takes = inspect.signature(scheduler.step).parameters
    for index, time in enumerate(times):
        # Every draw of a step gives the same numbers.
        fresh = gaussian(f"fresh {index}")
        module = inspect.getmodule(type(scheduler))
        module.randn_tensor = lambda *_, **__: fresh
        output = scheduler.scale_model_input(sample, time) * 0.3 + gaussian(f"output {index}") / 2
        kwargs = {"generator": None} if "generator" in takes else {}
        sample = scheduler.step(output, time, sample, **kwargs).prev_sample
        samples.append(sample)
    assert torch.isfinite(torch.stack(samples)).all(), (name, config)
    return times.double(), sigma, torch.stack(samples)


def draws():
    found = {}
    for seed, shape in ((0, (4, 6, 8)), (1234, (5, 7)), (5_000_000_001, (1000,)), (3, (17,))):
        generator = torch.Generator("cpu").manual_seed(seed)
        for draw in range(2):
            found[f"{seed}.{draw}"] = torch.randn(shape, generator=generator)
    return found


def main():
    runs, tensors = [], {}
    for index, (name, config, steps, strength) in enumerate(table()):
        times, sigma, samples = run(name, config, steps, strength)
        runs.append({"config": {"_class_name": name + "Scheduler", "_diffusers_version": diffusers.__version__, **config},
                     "steps": steps, "strength": strength, "sigma": sigma, "times": times.tolist()})
        tensors[str(index)] = samples.contiguous()
    for name, betas in (("linear", {}), ("scaled_linear", SD), ("squaredcos_cap_v2", COSINE)):
        for zero in (False, True):
            scheduler = diffusers.DDIMScheduler(**betas, rescale_betas_zero_snr=zero)
            tensors[f"alphas.{name}.{zero}".lower()] = scheduler.alphas_cumprod[::9].clone()
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    (HERE / "schedulers.json").write_text(f"[\n{lines}\n]\n")
    save_file(tensors, HERE / "schedulers.safetensors")
    save_file(draws(), HERE / "diffusion_noise.safetensors")
    print(len(runs), "runs")


if __name__ == "__main__":
    with torch.no_grad():
        main()
