#!/usr/bin/env python3
"""Trains the autoencoder: diffusers' AutoencoderTiny from nothing, on crops of the film's frames, then on whole frames.

    autoencoder.py [--steps N]

The loss is the pixels' (L1 and squares), their gradients' (edges), that of ResNet-18's first features (Johnson et al., Perceptual Losses for
Real-Time Style Transfer, 2016), and a slight pull of each latent channel to mean 0 and deviation 1, which is what a diffusion model wants. The
decoder sees latents with a little noise, so that it forgives what the diffusion model leaves."""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from work import DEVICE, SIZE, WORK, Training, cosine, facts, frames, half, pictures, pixels, resnet, sheet

CHANNELS, CROP, BATCH = 48, 64, 16
STEPS, RATE = 9_000, 2e-3
# The last part of the steps sees whole frames, whose borders crops do not have.
WHOLE = 0.1
NOISE = 0.03


def network():
    return AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(CHANNELS,) * 4, decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=(1, 2, 3, 3), num_decoder_blocks=(3, 3, 2, 1))


def trained():
    """The network with its averaged weights."""
    made = network().to(DEVICE, memory_format=torch.channels_last).eval().requires_grad_(False)
    made.load_state_dict(torch.load(WORK / "autoencoder.pt", map_location=DEVICE, weights_only=True)["average"])
    return made


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


def loss_of(net, features, batch, random):
    with half():
        latents = net.encoder(batch).float()
        noise = torch.from_numpy(random.standard_normal(tuple(latents.shape), np.float32)).to(DEVICE)
        made = net.decoder(latents + NOISE * noise).float()
        seen = features.distance(made, batch).mean()
    edges = sum(F.l1_loss(one, two) for one, two in zip(slopes(made), slopes(batch)))
    pull = latents.mean((0, 2, 3)).square().mean() + (latents.std((0, 2, 3)) - 1).square().mean()
    return F.l1_loss(made, batch) + 2 * F.mse_loss(made, batch) + 0.25 * edges + 0.05 * seen + 0.02 * pull


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
    args = arguments.parse_args()
    torch.manual_seed(0)
    known = facts()
    train = np.array([at for at, fact in enumerate(known) if not fact["held_out"]])
    held = np.array([at for at, fact in enumerate(known) if fact["held_out"]])
    net = network().to(DEVICE, memory_format=torch.channels_last)
    features = Features()
    shown = pixels(film[held[np.linspace(0, len(held) - 1, 64).astype(int)]])

    def draw(step):
        made = torch.cat([restored(net, part) for part in shown.split(16)])
        print(f"\nautoencoder, step {step}: held-out PSNR {psnr(made, shown).mean():.2f} dB", flush=True)
        sheet([row for start in range(0, 32, 8) for row in (pictures(shown)[start:start + 8], pictures(made)[start:start + 8])],
              WORK / f"sheets/autoencoder-{step:06}.png")

    def step_loss(random, step):
        whole = step >= args.steps * (1 - WHOLE)
        batch = crops(train, random, SIZE if whole else CROP, BATCH // 4 if whole else BATCH)
        return loss_of(net, features, batch, random)

    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, foreach=True)
    Training("autoencoder", net, optimizer, args.steps, cosine(args.steps, RATE), draw).run(step_loss)


if __name__ == "__main__":
    film = frames()
    main()
