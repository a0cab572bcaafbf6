#!/usr/bin/env python3
"""Stable Diffusion 1.5's networks in diffusers, random weights at their real sizes, and the small model's whole pipeline: seconds a call.

    diffusion.py --shared DIR --make
    diffusion.py --shared DIR --round N

--make writes networks and inputs into DIR, for benches/diffusion.rs too. A round times them as diffusers has them, and compares what opusflow
made of the same input: the relative error in f32, the cosine in bf16.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

CALLS = 3
STARTER = Path(__file__).resolve().parents[2] / "ops/models/starter-diffusion"
LATENTS = (1, 4, 64, 64)
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32, "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}
# What is missing is diffusers' default, which is Stable Diffusion 1.5's.
UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
NOISY, PROMPT, TIMESTEP = (2, 4, 64, 64), (2, 77, 768), 481
PRECISIONS = (("f32", torch.float32), ("bf16", torch.bfloat16))


def make(shared):
    torch.manual_seed(15)
    AutoencoderKL(**VAE).save_pretrained(shared / "vae")
    AutoencoderTiny().save_pretrained(shared / "taesd")
    UNet2DConditionModel(**UNET).save_pretrained(shared / "unet", max_shard_size="10GB")
    for name, shape in (("latents", LATENTS), ("noisy", NOISY), ("prompt", PROMPT)):
        torch.randn(shape).numpy().tofile(shared / f"{name}.f32")


def numbers(path, shape):
    return torch.from_numpy(np.fromfile(path, np.float32)).view(shape)


def seconds(call):
    call()
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def calls(shared, precision):
    """Each network's name, and its call as diffusers' pipelines make it."""
    latents = numbers(shared / "latents.f32", LATENTS).to(precision)
    for name, network in (("vae", AutoencoderKL), ("taesd", AutoencoderTiny)):
        network = network.from_pretrained(shared / name, torch_dtype=precision).eval()
        yield name, lambda: network.decode(latents / network.config.scaling_factor, return_dict=False)[0]
    network = UNet2DConditionModel.from_pretrained(shared / "unet", torch_dtype=precision).eval()
    noisy, prompt = numbers(shared / "noisy.f32", NOISY).to(precision), numbers(shared / "prompt.f32", PROMPT).to(precision)
    yield "unet", lambda: network(noisy, TIMESTEP, encoder_hidden_states=prompt, return_dict=False)[0]
    pipeline = StableDiffusionPipeline.from_pretrained(STARTER, torch_dtype=precision, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    seeds = itertools.count()

    def paint():
        seed = next(seeds)
        prompt = f"bright, green and blue, {['wide', 'close', 'still', 'moving'][seed % 4]}"
        made = pipeline(prompt, height=128, width=128, num_inference_steps=8, guidance_scale=3.0, output_type="np",
                        generator=torch.Generator().manual_seed(seed)).images
        return torch.from_numpy((made * 255).round())
    yield "starter", paint


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shared", type=Path, required=True)
    arguments.add_argument("--make", action="store_true")
    arguments.add_argument("--round", type=int)
    args = arguments.parse_args()
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    if args.make:
        make(args.shared)
        return

    def say(variant, value, unit):
        print(json.dumps({"bench": "diffusion", "variant": variant, "run": args.round, "value": value, "unit": unit}), flush=True)

    expected = {}
    for precision, dtype in PRECISIONS:
        for name, call in calls(args.shared, dtype):
            if precision == "f32":
                expected[name] = call()
            say(f"diffusers_{name}_{precision}", seconds(call), "s")
            ours = numbers(args.shared / f"opusflow_{name}_{precision}.f32", expected[name].shape)
            if precision == "f32":
                say(f"error_opusflow_{name}_f32", ((ours - expected[name]).norm() / expected[name].norm()).item(), "relative error")
            else:
                cosine = nn.functional.cosine_similarity(ours.flatten().double(), expected[name].flatten().double(), dim=0)
                say(f"cosine_opusflow_{name}_{precision}", cosine.item(), "cosine")


if __name__ == "__main__":
    main()
