"""Goldens of ResNet: torchvision's, on the trained weights of models/resnet-18 (a drawn picture) and on weights by formula (bottleneck).

    python tests/golden/resnet.py        (torch==2.11.0, torchvision==0.26.0, numpy, safetensors; models/ filled by ops/setup)
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import formula

HERE = Path(__file__).parent


def run(module, frames):
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std
    kept = {}
    module.avgpool.register_forward_hook(lambda _, __, out: kept.update(embedding=out.flatten(1)))
    with torch.no_grad():
        probabilities = module(x).softmax(-1)
    return kept["embedding"].numpy(), probabilities.numpy()


def pictures():
    """Two drawn pictures of 224 x 224: drifting stripes, and noise."""
    return np.stack([formula.film(40, 224, 224)[39], formula.noise("picture", (224, 224, 3))])


def main():
    torch.set_num_threads(2)
    trained = ResNet(BasicBlock, [2, 2, 2, 2])
    state = load_file(HERE.parents[1] / "models" / "resnet-18" / "model.safetensors")
    print(trained.load_state_dict({key: value.reshape(trained.state_dict()[key].shape) for key, value in state.items()}))
    trained.eval()
    out = dict(zip(("resnet18.embedding", "resnet18.probabilities"), run(trained, pictures())))
    tiny = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=10)
    shapes = formula.fill(tiny)
    out |= dict(zip(("bottleneck.embedding", "bottleneck.probabilities"), run(tiny, formula.noise("tiny", (2, 64, 96, 3)))))
    for key, value in out.items():
        print(key, value.shape, "apart", np.linalg.norm(value[0] - value[1]) / np.linalg.norm(value[0]), value.max(-1))
    save_file(out, HERE / "resnet.safetensors")
    (HERE / "resnet.json").write_text(json.dumps({"bottleneck": shapes}))


if __name__ == "__main__":
    main()
