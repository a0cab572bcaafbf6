"""Goldens of TorchScript: a small scripted module that gives a dictionary, and a traced one that gives a tuple, with what they make of frames.

    python tests/golden/torchscript.py        (torch==2.11.0, numpy, safetensors)
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import formula

HERE = Path(__file__).parent
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


class Named(nn.Module):
    """Two outputs by name; dropout shows whether it runs as in training."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.dropout = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 4), nn.Dropout(0.5)

    def forward(self, pictures: torch.Tensor):
        grid = torch.relu(self.conv(pictures))
        return {"grid": grid, "logits": self.dropout(self.fc(grid.mean(dim=(2, 3))))}


class Numbered(nn.Module):
    """Two outputs by number, of pictures with their channels last."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, pictures):
        rows = self.fc(pictures)
        return rows.mean(dim=(1, 2)), rows.amax(dim=(1, 2))


def frames(rows, columns):
    return torch.from_numpy(formula.film(40, rows, columns)[[0, 39]])


def main():
    out = {}
    normal = (frames(16, 12).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    named, numbered = Named(), Numbered()
    for module in (named, numbered):
        formula.fill(module)
    with torch.no_grad():
        given = named(normal.permute(0, 3, 1, 2))
        out["named.logits"], out["named.grid"] = given["logits"], given["grid"].flatten(1)
        out["numbered.0"], out["numbered.1"] = numbered(frames(16, 12).float() / 255)
        for name, module in (("named", torch.jit.script(named.train())), ("numbered", torch.jit.trace(numbered, torch.zeros(1, 16, 12, 3)))):
            folder = HERE / f"torchscript-{name}"
            folder.mkdir(exist_ok=True)
            module.save(str(folder / "model.pt"))
    config = {"architectures": ["TorchScript"], "input_size": [16, 12], "image_mean": MEAN, "image_std": STD, "output": "logits",
              "id2label": {str(n): name for n, name in enumerate(("day", "night", "rain", "snow"))}}
    (HERE / "torchscript-named/config.json").write_text(json.dumps(config) + "\n")
    (HERE / "torchscript-numbered/config.json").write_text(json.dumps({"architectures": ["TorchScript"]}) + "\n")
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "torchscript.safetensors")
    (HERE / "torchscript.safetensors").chmod(0o644)
    for key, value in out.items():
        print(key, tuple(value.shape), value.abs().mean().item())


if __name__ == "__main__":
    main()
