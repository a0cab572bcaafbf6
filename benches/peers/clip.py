#!/usr/bin/env python3
"""CLIP ViT-B/32's image tower in transformers, random weights at its real size, from frames to vectors of length 1: seconds a call.

    clip.py --shared DIR --make
    clip.py --shared DIR --round N

--make writes the model into DIR, for benches/clip.rs too, which leaves its frames and vectors there. A round times transformers' image
processor (its default, torchvision's backend) and model on the same frames, and compares the vectors: the cosine.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoImageProcessor, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

CALLS = 15
BATCHES = (1, 8)
PRECISIONS = (("f32", torch.float32), ("bf16", torch.bfloat16))


def make(shared):
    torch.manual_seed(32)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig())
    # The initial weights are so small that every frame would have nearly the same vector.
    for name, weight in model.named_parameters():
        if "norm" not in name and weight.ndim > 1:
            nn.init.normal_(weight, 0.0, weight[0].numel() ** -0.5)
    model.save_pretrained(shared / "clip")
    CLIPImageProcessor().save_pretrained(shared / "clip")


def seconds(call):
    call(), call()
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--shared", type=Path, required=True)
    arguments.add_argument("--make", action="store_true")
    arguments.add_argument("--round", type=int)
    args = arguments.parse_args()
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    if args.make:
        return make(args.shared)

    def say(variant, value, unit):
        print(json.dumps({"bench": "clip", "variant": variant, "run": args.round, "value": value, "unit": unit}), flush=True)

    processor = AutoImageProcessor.from_pretrained(args.shared / "clip")
    frames = np.fromfile(args.shared / "frames.u8", np.uint8).reshape(BATCHES[-1], 360, 640, 3)
    references = {}
    for name, precision in PRECISIONS:
        model = CLIPVisionModelWithProjection.from_pretrained(args.shared / "clip", dtype=precision).eval()
        for batch in BATCHES:

            def encode():
                pixels = processor(list(frames[:batch]), return_tensors="pt")["pixel_values"]
                return nn.functional.normalize(model(pixel_values=pixels.to(precision)).image_embeds.float(), dim=-1)

            references.setdefault(batch, encode())
            say(f"transformers_{name}_{batch}", seconds(encode), "s")
            ours = torch.from_numpy(np.fromfile(args.shared / f"opusflow_{name}_{batch}.f32", np.float32)).view(batch, -1)
            say(f"cosine_opusflow_{name}_{batch}", (ours * references[batch]).sum(-1).min().item(), "cosine")


if __name__ == "__main__":
    main()
