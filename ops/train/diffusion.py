#!/usr/bin/env python3
"""Trains the text encoder and the UNet together, from nothing, in the autoencoder's latents.

    diffusion.py [--steps N]

v-prediction (Salimans & Ho 2022) with a schedule that ends in nothing but noise (Lin et al. 2023), a tenth of the prompts left out for guidance
(Ho & Salimans 2022), weights averaged. The last part of the steps is spent on the timesteps that samplers of 4 to 8 steps visit, and on no
others, so that few steps are enough."""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel

import autoencoder
import prompts
from work import DEVICE, SIZE, WORK, Training, cosine, facts, frames, half, pictures, pixels, say, sheet

CONTEXT, BATCH = 128, 48
STEPS, RATE = 7_000, 4e-4
TUNED, UNPROMPTED = 0.25, 0.1
SCHEDULE = dict(
    num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
    rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True, steps_offset=1)
SHOWN = (
    "very bright, green, wide", "very dark, blue, cold", "bright, yellow and orange, warm", "dark, green and brown", "white and grey, pale, close",
    "vivid, green and blue, wide, still", "brown, close, moving", "blue and white, bright")


def text_encoder(words):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(words), hidden_size=CONTEXT, intermediate_size=4 * CONTEXT, num_hidden_layers=3, num_attention_heads=4, projection_dim=CONTEXT,
        max_position_embeddings=prompts.LENGTH, hidden_act="quick_gelu", bos_token_id=words[prompts.BEGIN], eos_token_id=words[prompts.END],
        pad_token_id=words[prompts.END]))


def unet():
    return UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4, block_out_channels=(96, 192, 256), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=CONTEXT, attention_head_dim=(2, 4, 4))


class Painter(torch.nn.Module):
    """Both networks, as one."""

    def __init__(self, words):
        super().__init__()
        self.words, self.text, self.unet = words, text_encoder(words), unet()

    def read(self, texts):
        tokens = torch.tensor([prompts.tokenize(text, self.words) for text in texts], device=DEVICE)
        return self.text(input_ids=tokens).last_hidden_state

    def forward(self, latents, timesteps, states):
        return self.unet(latents, timesteps, encoder_hidden_states=states).sample


def latents_of(film, known):
    """The latents of every frame and of its mirror image, by the trained autoencoder: `[n, 2, 4, 16, 16]` in halves, and their deviation."""
    path, coder = WORK / "latents.pt", WORK / "autoencoder.pt"
    if not path.exists() or path.stat().st_mtime < coder.stat().st_mtime:
        say("the latents of every frame")
        net, made = autoencoder.trained(), []
        with torch.no_grad(), half():
            for start in tqdm(range(0, len(film), 64), desc="latents", mininterval=5):
                batch = pixels(film[start:start + 64])
                made.append(torch.stack([net.encoder(batch), net.encoder(batch.flip(-1))], 1).half().cpu())
        torch.save(torch.cat(made), path)
    latents = torch.load(path, weights_only=True)
    train = [at for at, fact in enumerate(known) if not fact["held_out"]]
    return latents, latents[train].float().std().item()


@torch.no_grad()
def paint(painter, texts, seed, steps=8, guidance=3.0, shape=(4, SIZE // 8, SIZE // 8)):
    """Latents painted from noise, by DDIM, of unit deviation."""
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    made = torch.randn((len(texts), *shape), generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    states = torch.cat([painter.read([""] * len(texts)), painter.read(texts)])
    for timestep in scheduler.timesteps:
        with half():
            plain, asked = painter(torch.cat([made, made]), timestep.to(DEVICE), states).float().chunk(2)
        made = scheduler.step(plain + guidance * (asked - plain), timestep, made).prev_sample
    return made


def visited():
    """The timesteps of samplers of 4 to 8 steps."""
    return [np.round(np.arange(1000, 0, -1000 / steps)).astype(int) - 1 for steps in range(4, 9)]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=STEPS)
    args = arguments.parse_args()
    torch.manual_seed(0)
    film, known = frames(), facts()
    told = prompts.phrases(known)
    train = np.array([at for at, fact in enumerate(known) if not fact["held_out"]])
    latents, deviation = latents_of(film, known)
    painter = Painter(prompts.vocabulary(told)).to(DEVICE)
    coder = autoencoder.trained()
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.float().to(DEVICE)
    grids = visited()

    def draw(step):
        rows = [pictures(coder.decoder(paint(painter, SHOWN, seed) * deviation)) for seed in range(3)]
        sheet(rows, WORK / f"sheets/diffusion-{step:06}.png")

    def step_loss(random, step):
        chosen = random.choice(train, BATCH)
        clean = latents[chosen, random.integers(0, 2, BATCH)].to(DEVICE).float() / deviation
        texts = ["" if random.random() < UNPROMPTED else prompts.prompt(told[at], random) for at in chosen]
        if step < args.steps * (1 - TUNED):
            at = random.integers(0, 1000, BATCH)
        else:
            at = np.array([random.choice(grids[random.integers(len(grids))]) for _ in range(BATCH)])
        timesteps = torch.from_numpy(at).to(DEVICE)
        noise = torch.from_numpy(random.standard_normal(tuple(clean.shape), np.float32)).to(DEVICE)
        kept, mixed = (value.sqrt().view(-1, 1, 1, 1) for value in (alphas[timesteps], 1 - alphas[timesteps]))
        with half():
            made = painter(kept * clean + mixed * noise, timesteps, painter.read(texts))
        return F.mse_loss(made.float(), kept * noise - mixed * clean)

    optimizer = torch.optim.AdamW(painter.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-2, foreach=True)
    say(f"{sum(part.numel() for part in painter.parameters()) / 1e6:.1f} M parameters, {len(painter.words)} words, latents' deviation {deviation:.3f}")
    Training("diffusion", painter, optimizer, args.steps, cosine(args.steps, RATE), draw).run(step_loss)


if __name__ == "__main__":
    main()
