"""Makes the golden files of the UNet with diffusers, the reference.

    pip install torch==2.11.0 diffusers==0.42.1 numpy safetensors
    python tests/golden/unet.py

Three small networks with weights by formula: of the family of SD 1.5, of SD 2.1 (linear projections, heads by resolution) and of SDXL (pooled
prompt and sizes, deeper transformers, and the guidance scale as an input, as LCM's SDXL has it). unet.json lists their keys,
unet_configs.json is what diffusers writes as config.json, unet.safetensors holds inputs, what each block made, and outputs.
The latents' sides are no multiples of 4, so that the way up must come back to odd sizes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from formula import fill, mixed

HERE = Path(__file__).parent
CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"

SMALL = dict(sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=12)
NETWORKS = {
    "sd15": dict(
        attention_head_dim=2,
        down_block_types=(CROSS.format("Down"), CROSS.format("Down"), PLAIN.format("Down")),
        up_block_types=(PLAIN.format("Up"), CROSS.format("Up"), CROSS.format("Up")),
    ),
    "sd21": dict(
        attention_head_dim=(1, 2, 4),
        layers_per_block=2,
        use_linear_projection=True,
        upcast_attention=True,
        down_block_types=(CROSS.format("Down"), CROSS.format("Down"), PLAIN.format("Down")),
        up_block_types=(PLAIN.format("Up"), CROSS.format("Up"), CROSS.format("Up")),
    ),
    "sdxl": dict(
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2, 3),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 10,
        time_cond_proj_dim=6,
        down_block_types=(PLAIN.format("Down"), CROSS.format("Down"), CROSS.format("Down")),
        up_block_types=(CROSS.format("Up"), CROSS.format("Up"), PLAIN.format("Up")),
    ),
}


def numbers(seed, *shape):
    """Numbers of a normal distribution's size."""
    unit = mixed(seed, int(np.prod(shape))).astype(np.float32) / np.float32(2**31) - np.float32(1)
    return torch.from_numpy((unit * np.float32(1.7)).reshape(shape))


def run(name, network, golden):
    latents, prompt = numbers(f"{name}.latents", 2, 4, 6, 10), numbers(f"{name}.prompt", 2, 7, 12)
    golden |= {f"{name}.latents": latents, f"{name}.prompt": prompt}
    inputs = {}
    if name == "sdxl":
        pooled = numbers("sdxl.pooled", 2, 10)
        sizes = torch.tensor([[48.0, 80.0, 0.0, 4.0, 50.0, 82.0]] * 2)
        golden["sdxl.pooled"] = pooled
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        scale = torch.tensor([7.5 - 1] * 2)
        inputs["timestep_cond"] = StableDiffusionPipeline.get_guidance_scale_embedding(None, scale, embedding_dim=6)
    made = []
    for block in [*network.down_blocks, network.mid_block, *network.up_blocks]:
        block.register_forward_hook(lambda _, __, out: made.append(out[0] if isinstance(out, tuple) else out))
    out = network(latents, 481, encoder_hidden_states=prompt, **inputs).sample
    golden |= {f"{name}.{index}": state.contiguous() for index, state in enumerate(made)}
    golden[f"{name}.out"] = out
    print(name, [tuple(state.shape) for state in made], float(out.std()))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    keys, configs, golden = {}, {}, {}
    for name, sizes in NETWORKS.items():
        network = UNet2DConditionModel(**(SMALL | sizes))
        keys[name] = fill(network)
        configs[name] = json.loads(network.to_json_string())
        run(name, network, golden)
    (HERE / "unet.json").write_text(json.dumps(keys, separators=(",", ":")) + "\n")
    (HERE / "unet_configs.json").write_text(json.dumps(configs, indent=1) + "\n")
    save_file({key: value.contiguous() for key, value in golden.items()}, HERE / "unet.safetensors")
