#!/usr/bin/env python3
"""The seed's video encoder in PyTorch, on the weights and the clips of benches/encoder.rs: seconds a call.

    encoder.py --shared DIR --model FOLDER --round N

`torch_eager_f32` is the module as the seed has it, frame by frame in f32. `torch_by_hand_*` is the best that PyTorch gives to one who knows
how: batch norm folded, memory channels-last, the convolutions in small passes. DIR holds clips.u8 and the vectors of opusflow, which are
compared with those of the module as the seed has it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CLIPS, FRAMES, SIDE = 8, 30, 224
CALLS = 3


class VideoEncoder(nn.Module):
    """Four strided convolutions a frame, attention over frames, a transformer encoder, the mean, a projection."""

    def __init__(self):
        super().__init__()
        ins, outs, kernels = (3, 64, 128, 256), (64, 128, 256, 512), (7, 3, 3, 3)
        self.conv_layers = nn.ModuleList(nn.Conv2d(i, o, k, stride=2, padding=k // 2) for i, o, k in zip(ins, outs, kernels))
        self.bn_layers = nn.ModuleList(nn.BatchNorm2d(o) for o in outs)
        self.attention = nn.MultiheadAttention(512, 8, batch_first=True)
        layer = nn.TransformerEncoderLayer(512, 8, 2048, activation="gelu", batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.output_proj = nn.Linear(512, 512)

    def encode_frame(self, x):
        for conv, bn in zip(self.conv_layers, self.bn_layers):
            x = torch.max_pool2d(torch.relu(bn(conv(x))), 2)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)

    def over_frames(self, x):
        x, _ = self.attention(x, x, x)
        return self.output_proj(self.transformer(x).mean(dim=1))

    def forward(self, clips):
        """[b, t, 3, h, w] in 0..1 to [b, 512]."""
        return self.over_frames(torch.stack([self.encode_frame(clips[:, t]) for t in range(clips.shape[1])], dim=1))


class ByHand(nn.Module):
    """The same values: folded, channels-last, `frames` of them at a time."""

    def __init__(self, module, dtype, frames):
        super().__init__()
        pairs = zip(module.conv_layers, module.bn_layers)
        convs = nn.ModuleList(fuse_conv_bn_eval(conv, bn) for conv, bn in pairs)
        self.convs = convs.to(dtype=dtype, memory_format=torch.channels_last)
        self.rest = VideoEncoder().eval()
        self.rest.load_state_dict(module.state_dict())
        self.rest.to(dtype)
        self.dtype, self.frames = dtype, frames

    def forward(self, clips):
        vectors = []
        for x in clips.flatten(0, 1).split(self.frames):
            x = x.to(dtype=self.dtype, memory_format=torch.channels_last)
            for conv in self.convs:
                x = torch.relu_(torch.max_pool2d(conv(x), 2))
            vectors.append(x.mean(dim=(2, 3)))
        return self.rest.over_frames(torch.cat(vectors).view(*clips.shape[:2], -1)).float()


def seconds(call):
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def cosine(a, b):
    return nn.functional.cosine_similarity(a.double(), b.double()).min().item()


def main():
    arguments = argparse.ArgumentParser()
    for name in ("--shared", "--model"):
        arguments.add_argument(name, type=Path, required=True)
    arguments.add_argument("--round", type=int, required=True)
    arguments.add_argument("--passes", type=int, nargs="*", default=[4])
    args = arguments.parse_args()

    def say(variant, value, unit):
        print(json.dumps({"bench": "encoder", "variant": variant, "run": args.round, "value": value, "unit": unit}), flush=True)

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    module = VideoEncoder()
    module.load_state_dict(load_file(args.model / "model.safetensors"), strict=True)
    module.eval()
    pixels = torch.from_numpy(np.fromfile(args.shared / "clips.u8", np.uint8)).view(CLIPS, FRAMES, SIDE, SIDE, 3)
    clips = (pixels.permute(0, 1, 4, 2, 3).float() / 255).contiguous()

    reference = module(clips)
    say("torch_eager_f32", seconds(lambda: module(clips)), "s")
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        for frames in args.passes:
            by_hand = ByHand(module, dtype, frames)
            ours = by_hand(clips)
            label = f"torch_by_hand_{name}" + (f"_{frames}" if len(args.passes) > 1 else "")
            say(label, seconds(lambda: by_hand(clips)), "s")
            say(f"cosine_{label}", cosine(ours, reference), "cosine")
    for name in ("f32", "bf16"):
        vectors = torch.from_numpy(np.fromfile(args.shared / f"opusflow_{name}.f32", np.float32)).view(CLIPS, -1)
        say(f"cosine_opusflow_{name}", cosine(vectors, reference), "cosine")


if __name__ == "__main__":
    main()
