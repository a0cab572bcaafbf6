"""Goldens of DINOv2, with and without registers, classifier and gate: transformers' models on weights by formula.

    python tests/golden/dinov2.py        (torch==2.11.0, transformers==5.23.0, numpy, safetensors)
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (Dinov2Config, Dinov2ForImageClassification, Dinov2Model, Dinov2WithRegistersConfig,
                          Dinov2WithRegistersForImageClassification, Dinov2WithRegistersModel)

import disk
import formula

HERE = Path(__file__).parent
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
SIZES = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, mlp_ratio=2, image_size=28, patch_size=7)


def pictures(height, width):
    return np.stack([formula.film(40, height, width)[39], formula.noise("dinov2", (height, width, 3))])


def main():
    models = {
        # Of the size that positions were learnt for, and of two others.
        "plain": (Dinov2Model(Dinov2Config(**SIZES)), (28, 28)),
        "regrid": (Dinov2Model(Dinov2Config(**SIZES, qkv_bias=False)), (37, 50)),
        "gated": (Dinov2ForImageClassification(Dinov2Config(**SIZES, use_swiglu_ffn=True, num_labels=5)), (21, 28)),
        "registers": (Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)), (42, 35)),
        "classes": (Dinov2WithRegistersForImageClassification(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=2, num_labels=5)), (28, 28)),
    }
    out, shapes = {}, {}
    for name, (model, size) in models.items():
        model, shapes[name] = disk.by_formula(model)
        pixels = (torch.from_numpy(pictures(*size)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
        with torch.no_grad():
            run = model(pixels, output_hidden_states=True)
            out[f"{name}.first"] = run.hidden_states[1]
            if hasattr(run, "logits"):
                out[f"{name}.probabilities"] = run.logits.softmax(-1)
                run = model.base_model(pixels)
            out[f"{name}.last"], out[f"{name}.embedding"] = run.last_hidden_state, run.pooler_output
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "dinov2.safetensors")
    (HERE / "dinov2.safetensors").chmod(0o644)
    (HERE / "dinov2.json").write_text(json.dumps(shapes) + "\n")
    for key, value in out.items():
        print(key, tuple(value.shape), value.abs().mean().item(), "apart", ((value[-1] - value[0]).norm() / value.norm()).item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
