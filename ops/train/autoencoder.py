#!/usr/bin/env python3
"""Trains the autoencoder: diffusers' AutoencoderTiny from nothing, on crops of the film's frames, then on whole frames; then its decoder alone.

    autoencoder.py [--steps N] [--sharpen N]

The loss is the pixels' (L1 and squares), their gradients' (edges), that of ResNet-18's first features (Johnson et al., Perceptual Losses for
Real-Time Style Transfer, 2016), and a slight pull of each latent channel to mean 0 and deviation 1, which is what a diffusion model wants. The
decoder sees latents with a little noise, so that it forgives what the diffusion model leaves. At last the decoder learns on alone, with more
weight on features and against a critic of patches (hinge loss, Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2021), which
sharpens what it makes, and the latents stay what they are."""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from work import DEVICE, SIZE, WORK, Training, cosine, facts, frames, half, pictures, pixels, resnet, sheet

CHANNELS, CROP, BATCH = 48, 64, 16
STEPS, RATE = 9_000, 2e-3
SHARPENED, SHARPENING_RATE = 3_000, 5e-4
# What features weigh in the loss, and what they weigh for the decoder alone.
SEEN, SEEN_SHARPENED = 0.05, 0.5
# What the critic's opinion weighs, once it has learned for some steps.
CRITIC, LEARNING = 0.03, 300
# The last part of the steps sees whole frames, whose borders crops do not have.
WHOLE = 0.1
NOISE = 0.03


def network():
    return AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(CHANNELS,) * 4, decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=(1, 2, 3, 3), num_decoder_blocks=(3, 3, 2, 1))


def trained():
    """The network with its averaged weights, the decoder as far as it is sharpened."""
    made = network().to(DEVICE, memory_format=torch.channels_last).eval().requires_grad_(False)
    saved = lambda name: torch.load(WORK / f"{name}.pt", map_location=DEVICE, weights_only=True)["average"]
    made.load_state_dict(saved("autoencoder"))
    if (WORK / "decoder.pt").exists():
        made.decoder.load_state_dict({key.removeprefix("decoder."): value for key, value in saved("decoder").items() if key.startswith("decoder.")})
    return made


def critic():
    """Whether a patch of some 40 pixels is a film's or the decoder's."""
    conv = torch.nn.Conv2d
    act = lambda: torch.nn.LeakyReLU(0.2, inplace=True)
    return torch.nn.Sequential(conv(3, 32, 4, 2, 1), act(), conv(32, 64, 4, 2, 1), act(), conv(64, 128, 4, 2, 1), act(), conv(128, 1, 3, 1, 1)).to(
        DEVICE, memory_format=torch.channels_last)


class Features:
    """ResNet-18's features after its first two stages, each pixel's of unit length."""

    MEAN, SPREAD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def __init__(self):
        self.network = resnet()
        self.mean, self.spread = (value.view(1, 3, 1, 1).to(DEVICE) for value in (self.MEAN, self.SPREAD))

    def __call__(self, batch):
        net = self.network
        made = net.relu(net.bn1(net.conv1(((batch + 1) / 2 - self.mean) / self.spread)))
        first = net.layer1(net.maxpool(made))
        return [F.normalize(made.float(), dim=1), F.normalize(first.float(), dim=1), F.normalize(net.layer2(first).float(), dim=1)]

    def distance(self, a, b):
        """Like LPIPS (Zhang et al. 2018) without its learned weights: `[n]`."""
        return sum((one - two).square().sum(1).mean((1, 2)) for one, two in zip(self(a), self(b)))


def slopes(batch):
    return batch[..., 1:, :] - batch[..., :-1, :], batch[..., 1:] - batch[..., :-1]


def crops(pool, random, size, count):
    """Crops of random frames, mirrored half the time; some in other colours, so that it knows more than one film's."""
    made = np.empty((count, size, size, 3), np.uint8)
    for at, frame in enumerate(random.choice(pool, count)):
        y, x = random.integers(0, SIZE - size + 1, 2)
        crop = film[frame, y:y + size, x:x + size]
        if random.random() < 0.5:
            crop = crop[:, ::-1]
        if random.random() < 0.2:
            crop = crop[..., random.permutation(3)]
        if random.random() < 0.1:
            crop = 255 - crop
        made[at] = crop
    return pixels(made)


def loss_of(net, features, batch, random, seen):
    """What a batch costs, its features weighing `seen`."""
    with half():
        latents = net.encoder(batch).float()
        noise = torch.from_numpy(random.standard_normal(tuple(latents.shape), np.float32)).to(DEVICE)
        made = net.decoder(latents + NOISE * noise).float()
        unlike = features.distance(made, batch).mean()
    edges = sum(F.l1_loss(one, two) for one, two in zip(slopes(made), slopes(batch)))
    pull = latents.mean((0, 2, 3)).square().mean() + (latents.std((0, 2, 3)) - 1).square().mean()
    return F.l1_loss(made, batch) + 2 * F.mse_loss(made, batch) + 0.25 * edges + seen * unlike + 0.02 * pull, made


def judged(critic, made, batch):
    """What the decoder's pictures cost before the critic, and what the critic's errors cost: each learns from its own."""
    with half():
        critic.requires_grad_(False)
        opinion = critic(made)
        critic.requires_grad_(True)
        real, false = critic(batch), critic(made.detach())
    return -opinion.float().mean(), F.relu(1 - real.float()).mean() + F.relu(1 + false.float()).mean()


@torch.no_grad()
def restored(net, batch):
    with half():
        return net.decoder(net.encoder(batch)).float().clamp(-1, 1)


def psnr(made, batch):
    """Of each picture, in dB."""
    return -10 * torch.log10(((made.float() - batch.float()) / 2).square().mean((1, 2, 3)))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--sharpen", type=int, default=SHARPENED)
    args = arguments.parse_args()
    torch.manual_seed(0)
    known = facts()
    train = np.array([at for at, fact in enumerate(known) if not fact["held_out"]])
    held = np.array([at for at, fact in enumerate(known) if fact["held_out"]])
    features = Features()
    shown = pixels(film[held[np.linspace(0, len(held) - 1, 64).astype(int)]])

    def batch(random, step, steps):
        whole = step >= steps * (1 - WHOLE)
        return crops(train, random, SIZE if whole else CROP, BATCH // 4 if whole else BATCH)

    def learn(name, net, parts, steps, rate, step_loss):
        def draw(step):
            made = torch.cat([restored(net, some) for some in shown.split(16)])
            db, unlike = psnr(made, shown).mean(), features.distance(made, shown).mean()
            print(f"\n{name}, step {step}: held-out PSNR {db:.2f} dB, distance {unlike:.4f}", flush=True)
            sheet([row for start in range(0, 32, 8) for row in (pictures(shown)[start:start + 8], pictures(made)[start:start + 8])],
                  WORK / f"sheets/{name}-{step:06}.png")

        optimizer = torch.optim.AdamW(parts.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, foreach=True)
        Training(name, parts, optimizer, steps, cosine(steps, rate), draw).run(step_loss)

    net = network().to(DEVICE, memory_format=torch.channels_last)
    learn("autoencoder", net, net, args.steps, RATE,
          lambda random, step: loss_of(net, features, batch(random, step, args.steps), random, SEEN)[0])

    sharp = trained()
    pair = torch.nn.ModuleDict({"decoder": sharp.decoder.requires_grad_(True), "critic": critic()})

    def sharp_loss(random, step):
        seen = batch(random, step, args.sharpen)
        loss, made = loss_of(sharp, features, seen, random, SEEN_SHARPENED)
        opinion, errors = judged(pair["critic"], made, seen)
        return loss + CRITIC * min(1, step / LEARNING) * opinion + errors

    learn("decoder", sharp, pair, args.sharpen, SHARPENING_RATE, sharp_loss)


if __name__ == "__main__":
    film = frames()
    main()
