#!/usr/bin/env python3
"""Measures the exported model, on shots that no part of it has seen: evaluation.json and samples.png in its folder.

Everything is painted by diffusers in f32 from the f16 weights, in 8 steps where nothing else is said."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

import autoencoder
import prompts
from work import DEVICE, MODEL, SIZE, facts, frames, pictures, pixels, resnet, say, sheet

STEPS, GUIDANCE, SAMPLES = 8, 3.0, 500
SCENES = ("wide", "close", "wide, still", "close, moving", "vivid", "pale", "vivid, wide", "still", "moving", "close, still")
# (what is said of one picture, what of the other, which must be brighter)
BRIGHT = [(f"{dark}, {colour}, {scene}", f"{bright}, {colour}, {scene}") for dark, bright in (("very dark", "very bright"), ("dark", "bright"))
          for colour in ("green", "blue", "brown", "green and yellow", "blue and white") for scene in SCENES[:5]]
# The same, and the channel that the second must have more of.
HUES = [(f"{scene}, {light}, {a}", f"{scene}, {light}, {b}", axis) for a, b, axis in (
    ("yellow and orange", "blue", "blue"), ("brown", "green", "green"), ("purple", "green", "green"), ("red", "blue", "blue"), ("orange", "cyan", "blue"))
    for light, scene in zip(("bright", "dark") * 5, SCENES)]


def load(folder, kind=StableDiffusionPipeline):
    pipeline = kind.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None).to(DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(seeds):
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def paint(pipeline, texts, seeds, steps=STEPS):
    """Pictures as `[n, 128, 128, 3]` of bytes."""
    made = []
    for start in range(0, len(texts), 25):
        part = texts[start:start + 25]
        made.append(pipeline(part, height=SIZE, width=SIZE, num_inference_steps=steps, guidance_scale=GUIDANCE, output_type="np",
                             generator=generators(seeds[start:start + 25])).images)
    return (np.concatenate(made) * 255).round().astype(np.uint8)


class Frechet:
    """The Frechet distance of FID (Heusel et al. 2017), in the 512 features of our ResNet-18 instead of Inception's."""

    def __init__(self):
        self.network = resnet()
        self.network.fc = torch.nn.Identity()

    @torch.no_grad()
    def features(self, images):
        made = []
        for start in range(0, len(images), 64):
            batch = (pixels(images[start:start + 64]) + 1) / 2
            batch = torch.nn.functional.interpolate(batch, (224, 224), mode="bilinear", antialias=True)
            mean, spread = (value.view(1, 3, 1, 1).to(DEVICE) for value in (autoencoder.Features.MEAN, autoencoder.Features.SPREAD))
            made.append(self.network((batch - mean) / spread).double().cpu())
        return torch.cat(made)

    @staticmethod
    def between(a, b):
        (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), torch.cov(x.T)) for x in (a, b))
        # The trace of the root of a product is that of the roots of its eigenvalues, which are not negative.
        roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
        return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots)


def followed(pipeline):
    """The part of the pairs whose pictures differ the way their prompts do."""
    seeds = np.arange(len(BRIGHT))
    dark, bright = (paint(pipeline, [pair[at] for pair in BRIGHT], seeds).astype(float) for at in (0, 1))
    brightness = bright.mean((1, 2, 3)) > dark.mean((1, 2, 3))
    plain, asked = (paint(pipeline, [pair[at] for pair in HUES], seeds).astype(float) for at in (0, 1))
    channel = {"red": 0, "green": 1, "blue": 2}

    def share(images):
        mean = images.mean((1, 2))
        return np.array([mean[at, channel[axis]] / mean[at].sum() for at, (_, _, axis) in enumerate(HUES)])
    hue = share(asked) > share(plain)
    return {"brightness": int(brightness.sum()), "hue": int(hue.sum()), "pairs": len(BRIGHT) + len(HUES)}


def ssim(a, b):
    """Structural similarity (Wang et al. 2004) of luma, in windows of 8 by 8: the mean over pictures."""
    luma = [torch.from_numpy(x.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[:, None] for x in (a, b)]
    pool = lambda x: torch.nn.functional.avg_pool2d(x, 8, 4)
    (one, two), (c1, c2) = luma, ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
    m1, m2 = pool(one), pool(two)
    v1, v2, cov = pool(one * one) - m1 * m1, pool(two * two) - m2 * m2, pool(one * two) - m1 * m2
    return float((((2 * m1 * m2 + c1) * (2 * cov + c2)) / ((m1 * m1 + m2 * m2 + c1) * (v1 + v2 + c2))).mean())


def repainted(folder, held, film, told):
    """How much of a frame is left by image-to-image, at two strengths."""
    pipeline = load(folder, StableDiffusionImg2ImgPipeline)
    chosen = held[np.linspace(0, len(held) - 1, 50).astype(int)]
    before, found = film[chosen], {}
    for strength in (0.4, 0.9):
        made = pipeline([prompts.prompt(told[at]) for at in chosen], image=[Image.fromarray(frame) for frame in before], strength=strength,
                        num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np", generator=generators(range(50))).images
        found[str(strength)] = round(ssim(before, (made * 255).round().astype(np.uint8)), 3)
    return found


@torch.no_grad()
def coded(pipeline, held, film):
    """What the autoencoder keeps of held-out frames: PSNR, the distance in ResNet-18's features, and how steep edges still are (the mean slope
    over the frames'); each beside that of frames that were scaled down by 4 and by 8, as latents are, and up again."""
    features, found = autoencoder.Features(), {}

    def shrunk(batch, by):
        small = torch.nn.functional.interpolate(batch, scale_factor=1 / by, mode="bicubic", antialias=True)
        return torch.nn.functional.interpolate(small, scale_factor=by, mode="bicubic")

    def steepness(batch):
        return sum(slope.abs().mean((1, 2, 3)) for slope in autoencoder.slopes(batch))

    for start in range(0, len(held), 32):
        batch = pixels(film[held[start:start + 32]])
        made = pipeline.vae.decoder(pipeline.vae.encoder(batch)).clamp(-1, 1)
        for name, images in (("restored", made), ("scaled_by_4", shrunk(batch, 4)), ("scaled_by_8", shrunk(batch, 8))):
            figures = autoencoder.psnr(images, batch), features.distance(images, batch), steepness(images) / steepness(batch).clamp(min=1e-3)
            found.setdefault(name, []).append(torch.stack(figures, 1))
    return {name: dict(zip(("psnr_db", "distance", "edges"), (round(value, 3) for value in torch.cat(parts).mean(0).tolist())))
            for name, parts in found.items()}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL
    film, known = frames(), facts()
    told, random = prompts.phrases(known), np.random.default_rng(0)
    held = np.array([at for at, fact in enumerate(known) if fact["held_out"]])
    train = np.array([at for at, fact in enumerate(known) if not fact["held_out"]])
    pipeline, frechet = load(folder), Frechet()
    found = {"steps": STEPS, "guidance": GUIDANCE, "autoencoder": coded(pipeline, held, film)}
    say(f"autoencoder: {found['autoencoder']}")
    found["pairs_followed"] = followed(pipeline)
    say(f"prompts: {found['pairs_followed']}")
    found["ssim_by_strength"] = repainted(folder, held, film, told)
    say(f"image-to-image: {found['ssim_by_strength']}")

    asked = random.choice(held, SAMPLES, replace=False)
    texts = [prompts.prompt(told[at]) for at in asked]
    made, quick = (paint(pipeline, texts, np.arange(SAMPLES), steps) for steps in (STEPS, STEPS // 2))
    seen = film[np.sort(random.choice(train, SAMPLES, replace=False))]
    noise = random.integers(0, 256, made.shape).astype(np.uint8)
    latent_noise = []
    with torch.no_grad():
        for start in range(0, SAMPLES, 50):
            latents = torch.randn((50, 4, SIZE // 8, SIZE // 8), generator=torch.Generator().manual_seed(start)).to(DEVICE)
            latent_noise.append(pictures(pipeline.vae.decoder(latents / pipeline.vae.config.scaling_factor)))
    of_held = frechet.features(film[held])
    found["frechet_to_held_out"] = {
        name: round(frechet.between(frechet.features(images), of_held), 1)
        for name, images in (("samples", made), ("samples_in_half_the_steps", quick), ("training_frames", seen),
                             ("decoded_noise", np.concatenate(latent_noise)), ("noise", noise))}
    say(f"Frechet distance: {found['frechet_to_held_out']}")
    # Of 16 samples the prompts are in the card.
    chosen = [prompts.prompt(told[at]) for at in random.choice(held, 16, replace=False)]
    found["sheet"] = chosen
    drawn = paint(pipeline, chosen, np.arange(16) + 1000)
    sheet([drawn[start:start + 4] for start in range(0, 16, 4)], folder / "samples.png")
    (folder / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
