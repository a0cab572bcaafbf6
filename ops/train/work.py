"""What every step of the training shares: where things lie, checkpoints that survive an interruption, sheets of pictures."""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
WORK = Path(os.environ.get("OPUSFLOW_TRAINING", ROOT / ".cache/train"))
MODELS = Path(os.environ.get("OPUSFLOW_MODELS", ROOT / "models"))
MODEL = ROOT / "ops/models/starter-diffusion"
FILM = WORK / "bbb.mp4"
SIZE = 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Seconds between two checkpoints, and between two sheets of samples.
SAVE_EVERY, SHEET_EVERY = 120, 300


def say(text):
    print(f"train: {text}", flush=True)


def frames():
    """All frames of the film: `[n, 128, 128, 3]` of bytes, on disk until used."""
    return np.load(WORK / "frames.npy", mmap_mode="r")


def facts():
    """What is known of each frame, as data.py has it."""
    return json.loads((WORK / "facts.json").read_text())


def pixels(pictures):
    """`[n, h, w, 3]` of bytes to `[n, 3, h, w]` in -1..1."""
    made = torch.from_numpy(np.array(pictures)).to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1
    return made.contiguous(memory_format=torch.channels_last)


def pictures(made):
    """The other way."""
    return ((made.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def sheet(rows, path):
    """Rows of pictures of one size as one PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)).save(path)


def half():
    """Half precision where it pays, the weights in f32."""
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def resnet():
    """Our ResNet-18, frozen."""
    from torchvision.models import resnet18
    network = resnet18()
    network.load_state_dict(load_file(MODELS / "resnet-18/model.safetensors"), strict=False)
    return network.eval().requires_grad_(False).to(DEVICE, memory_format=torch.channels_last)


class Average:
    """The moving average of a network's weights, which is what is kept."""

    def __init__(self, network, most=0.9995):
        self.most, self.weights = most, {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, network, step):
        decay = min(self.most, (1 + step) / (10 + step))
        old, new = zip(*((self.weights[key], value) for key, value in network.state_dict().items()))
        torch._foreach_lerp_(list(old), list(new), 1 - decay)


class Training:
    """A loop of a fixed number of steps that goes on from its last checkpoint. Each step draws from a generator of its own, so that an
    interrupted training ends as an uninterrupted one does. `draw(step)` draws a sheet with the averaged weights."""

    def __init__(self, name, network, optimizer, steps, rate, draw):
        self.name, self.network, self.optimizer, self.steps, self.rate, self.draw = name, network, optimizer, steps, rate, draw
        self.average, self.path = Average(network), WORK / f"{name}.pt"
        self.step, self.seconds = 0, 0.0
        if self.path.exists():
            saved = torch.load(self.path, map_location=DEVICE, weights_only=True)
            network.load_state_dict(saved["network"])
            self.average.weights.update(saved["average"])
            optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            say(f"{name} goes on from step {self.step}")

    def save(self):
        draft = self.path.with_suffix(".draft")
        torch.save({"network": self.network.state_dict(), "average": self.average.weights, "optimizer": self.optimizer.state_dict(),
                    "step": self.step, "seconds": self.seconds}, draft)
        draft.replace(self.path)

    @torch.no_grad()
    def show(self):
        own = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.weights)
        self.network.eval()
        self.draw(self.step)
        self.network.load_state_dict(own)
        self.network.train()

    def advance(self, loss):
        rate = self.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.average.follow(self.network, self.step)

    def run(self, loss_of):
        """`loss_of(generator, step)` gives a step's loss. What is trained already is left as it is."""
        if self.step >= self.steps:
            return
        saved = drawn = began = time.monotonic()
        before, shown = self.seconds, 0.0
        bar = tqdm(total=self.steps, initial=self.step, desc=self.name, mininterval=5, smoothing=0.05)
        while self.step < self.steps:
            loss = loss_of(np.random.default_rng([*self.name.encode(), self.step]), self.step)
            self.advance(loss)
            shown = 0.98 * shown + 0.02 * loss.item() if shown else loss.item()
            bar.set_postfix(loss=f"{shown:.4f}", refresh=False)
            bar.update()
            now = time.monotonic()
            self.seconds = before + now - began
            if now - saved > SAVE_EVERY:
                self.save()
                saved = now
            if now - drawn > SHEET_EVERY:
                self.show()
                drawn = time.monotonic()
        bar.close()
        self.save()
        self.show()


def cosine(steps, rate, warm=200):
    """A learning rate that rises over `warm` steps and falls to a fiftieth along a cosine."""
    def at(step):
        return rate * min(1, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))
    return at
