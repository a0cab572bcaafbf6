"""Goldens of the seed system's video encoder: the module in PyTorch as that system has it, run frame by frame in f32.

    python tests/golden/opus_encoder.py        (torch==2.11.0, numpy, safetensors)
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

import formula

HERE = Path(__file__).parent


class VideoEncoder(nn.Module):
    """Four strided convolutions a frame, attention over frames, a transformer encoder, the mean, a projection."""

    def __init__(self, channels=(64, 128, 256, 512), kernels=(7, 3, 3, 3), heads=8, layers=6, intermediate=2048, output=512):
        super().__init__()
        ins = (3, *channels[:-1])
        self.conv_layers = nn.ModuleList(nn.Conv2d(i, o, k, stride=2, padding=k // 2) for i, o, k in zip(ins, channels, kernels))
        self.bn_layers = nn.ModuleList(nn.BatchNorm2d(o) for o in channels)
        width = channels[-1]
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        layer = nn.TransformerEncoderLayer(width, heads, intermediate, activation="gelu", batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.output_proj = nn.Linear(width, output)

    def encode_frame(self, x):
        for conv, bn in zip(self.conv_layers, self.bn_layers):
            x = torch.max_pool2d(torch.relu(bn(conv(x))), 2)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)

    def forward(self, clips):
        """[b, t, 3, h, w] in 0..1 to [b, output]."""
        x = torch.stack([self.encode_frame(clips[:, t]) for t in range(clips.shape[1])], dim=1)
        x, _ = self.attention(x, x, x)
        return self.output_proj(self.transformer(x).mean(dim=1))


def golden(name, module, shape):
    shapes = formula.fill(module)
    clips = formula.noise(name, shape)
    # Two clips that differ: the second is darker, so that a network that ignores its input is caught.
    clips[1] //= 3
    with torch.no_grad():
        out = module(torch.from_numpy(clips).permute(0, 1, 4, 2, 3).float() / 255).numpy()
    apart = np.linalg.norm(out[0] - out[1]) / np.linalg.norm(out[0])
    assert apart > 0.01, apart
    print(name, out.shape, "clips apart by", apart)
    return shapes, out


def main():
    torch.set_num_threads(2)
    sizes = {"channels": (8, 16, 24), "kernels": (5, 3, 3), "heads": 3, "layers": 2, "intermediate": 40, "output": 20}
    outputs, keys = {}, {}
    keys["small"], outputs["small"] = golden("small", VideoEncoder(**sizes), (2, 5, 64, 96, 3))
    keys["full"], outputs["full"] = golden("full", VideoEncoder(), (2, 6, 224, 224, 3))
    save_file(outputs, HERE / "opus_encoder.safetensors")
    (HERE / "opus_encoder.json").write_text(json.dumps(keys))


if __name__ == "__main__":
    main()
