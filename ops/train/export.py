#!/usr/bin/env python3
"""Writes the trained networks as a pipeline of the Stable Diffusion family, in Diffusers' folder layout and in f16: to ops/models/starter-diffusion,
or into the folder that is named."""

import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import PreTrainedTokenizerFast

import autoencoder
import diffusion
import prompts
from work import MODEL, WORK, facts, frames, say


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL
    known = facts()
    words = prompts.vocabulary(prompts.phrases(known))
    painter = diffusion.Painter(words)
    painter.load_state_dict(torch.load(WORK / "diffusion.pt", map_location="cpu", weights_only=True)["average"])
    coder = autoencoder.trained().cpu()
    coder.register_to_config(scaling_factor=1 / diffusion.latents_of(frames(), known)[1])
    prompts.write_tokenizer(words, WORK / "tokenizer")
    pipeline = StableDiffusionPipeline(
        vae=coder, text_encoder=painter.text, tokenizer=PreTrainedTokenizerFast.from_pretrained(WORK / "tokenizer"), unet=painter.unet,
        scheduler=DDIMScheduler(**diffusion.SCHEDULE), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.to(torch.float16).save_pretrained(folder)
    for file in (folder / "model_index.json", folder / "tokenizer/tokenizer_config.json"):
        # The name that every version of transformers knows.
        file.write_text(file.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast").rstrip() + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    say(f"{folder}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
