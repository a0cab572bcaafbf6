"""Goldens of preprocessing: what transformers' image processors make of the same bytes, by torchvision and by PIL.

    python tests/golden/pictures.py        (torch==2.11.0, torchvision==0.26.0, transformers==5.23.0, pillow==13.0.0, numpy, safetensors)
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

import formula

HERE = Path(__file__).parent
SHAPES = {"wide": (45, 83), "high": (61, 40), "small": (15, 17)}


def main():
    plain = dict(do_rescale=False, do_normalize=False)
    clip = dict(size={"shortest_edge": 30}, crop_size={"height": 24, "width": 28}, **plain)
    siglip = dict(size={"height": 20, "width": 26}, resample=2, **plain)
    processors = {
        "clip.{}.torchvision": CLIPImageProcessor(**clip), "clip.{}.pil": CLIPImageProcessorPil(**clip),
        "siglip.{}.torchvision": SiglipImageProcessor(**siglip), "siglip.{}.pil": SiglipImageProcessorPil(**siglip),
    }
    out = {}
    for shape, size in SHAPES.items():
        frames = formula.noise(shape, (2, *size, 3))
        for name, processor in processors.items():
            planes = processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
            out[name.format(shape)] = planes.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
        for name in ("clip", "siglip"):
            apart = (out[f"{name}.{shape}.torchvision"].int() - out[f"{name}.{shape}.pil"].int()).abs()
            print(name, shape, tuple(out[f"{name}.{shape}.pil"].shape), "backends are", apart.max().item(), "levels apart")
    save_file(out, HERE / "pictures.safetensors")


if __name__ == "__main__":
    main()
