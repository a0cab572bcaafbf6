"""Makes the goldens of the small diffusion model in ops/models/starter-diffusion: what diffusers, the reference, paints with it, frames of shots
that it has not seen (Big Buck Bunny, CC BY 3.0, the Blender Foundation), and the mean and deviation of all such frames' ResNet-18 features.

    ops/train/run film data
    $(ops/python/torch) tests/golden/starter.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "ops/train"))
import evaluate
from work import MODEL, facts, frames

PROMPTS = ["bright, green and blue, wide, still", "Very dark; a close photograph of a brown hare!"]
FRAMES = 16


def main():
    film, held = frames(), np.array([at for at, fact in enumerate(facts()) if fact["held_out"]])
    chosen = film[held[np.linspace(0, len(held) - 1, FRAMES).astype(int)]]
    features = evaluate.Frechet().features(film[held])
    painted = evaluate.paint(evaluate.load(MODEL), PROMPTS, [1, 2])
    repaint = evaluate.load(MODEL, StableDiffusionImg2ImgPipeline)
    again = repaint(PROMPTS, image=[Image.fromarray(frame) for frame in chosen[:2]], strength=0.5, num_inference_steps=evaluate.STEPS,
                    guidance_scale=evaluate.GUIDANCE, output_type="np", generator=evaluate.generators([3, 4])).images
    save_file({
        "frames": torch.from_numpy(chosen.copy()), "painted": torch.from_numpy(painted).contiguous(),
        "repainted": torch.from_numpy((again * 255).round().astype(np.uint8)).contiguous(),
        "mean": features.mean(0).float(), "deviation": features.std(0).float(),
    }, HERE / "starter.safetensors")


if __name__ == "__main__":
    main()
