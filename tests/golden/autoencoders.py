"""Makes the golden files of Stable Diffusion's autoencoders with diffusers, the reference.

    pip install torch==2.11.0 diffusers==0.42.1 numpy safetensors
    python tests/golden/autoencoders.py

Weights and inputs are by formula: autoencoders.json lists each network's keys and its config.json, autoencoders.safetensors holds
latents, activations on the way, pictures, and both in tiles (every third pixel of the large ones).
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import save_file

from formula import fill, noise

HERE = Path(__file__).parent
SMALL = {
    "block_out_channels": [8, 16], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4, "sample_size": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
}
DEEP = {
    **SMALL, "block_out_channels": [4, 8, 12], "layers_per_block": 2, "latent_channels": 3, "use_quant_conv": False,
    "use_post_quant_conv": False, "mid_block_add_attention": False, "scaling_factor": 0.5, "shift_factor": 0.25,
    "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
}
TINY = {
    "encoder_block_out_channels": [6] * 4, "decoder_block_out_channels": [6] * 4, "num_encoder_blocks": [1, 2, 1, 1],
    "num_decoder_blocks": [1, 1, 2, 1], "latent_channels": 4,
}


def pictures(seed, *shape):
    """In -1..1, from bytes [n, h, w, 3]."""
    frames = torch.from_numpy(noise(seed, shape)).float() / 255
    return VaeImageProcessor.normalize(frames).permute(0, 3, 1, 2)


def latents(seed, *shape):
    return torch.from_numpy(noise(seed, shape).astype(np.float32) / 64 - 2)


def outputs(module, names, call):
    """What the named parts give when `call` runs."""
    found = {}
    hooks = [module.get_submodule(name).register_forward_hook(lambda *args, name=name: found.__setitem__(name, args[2].clone())) for name in names]
    result = call()
    for hook in hooks:
        hook.remove()
    return found, result


def make(cls, name, config, networks):
    network = cls(**config)
    networks[name] = fill(network)
    networks.setdefault("configs", {})[name] = {"_class_name": cls.__name__, **config}
    return network


def thinned(x):
    return x[..., ::3, ::3].contiguous()


def kl(name, config, networks, tensors):
    network = make(AutoencoderKL, name, config, networks)
    factor, channels = 2 ** (len(config["block_out_channels"]) - 1), config["latent_channels"]
    levels = range(len(config["block_out_channels"]))
    parts = ["encoder.conv_in", *(f"encoder.down_blocks.{level}" for level in levels), "encoder.mid_block"]
    found, posterior = outputs(network, parts, lambda: network.encode(pictures("kl", 2, 8, 12, 3)).latent_dist)
    parts = ["decoder.conv_in", "decoder.mid_block", *(f"decoder.up_blocks.{level}" for level in levels)]
    more, decoded = outputs(network, parts, lambda: network.decode(latents("latents", 2, channels, 8 // factor, 12 // factor)).sample)
    tensors.update({f"{name}.{part}": value[0].contiguous() for part, value in {**found, **more}.items()})
    tensors |= {f"{name}.mean": posterior.mean, f"{name}.logvar": posterior.logvar, f"{name}.decoded": decoded}
    network.enable_slicing()
    network.enable_tiling()
    tensors[f"{name}.tiled.mean"] = network.encode(pictures("tiled", 2, 40, 28, 3)).latent_dist.mean
    tensors[f"{name}.tiled.decoded"] = thinned(network.decode(latents("tiled", 2, channels, 40 // factor, 28 // factor)).sample)


def tiny(networks, tensors):
    network = make(AutoencoderTiny, "tiny", TINY, networks)
    tensors["tiny.encoded"] = network.encode(pictures("tiny", 2, 16, 24, 3)).latents
    tensors["tiny.decoded"] = network.decode(latents("latents", 2, 4, 2, 3) * 3).sample
    tensors["tiny.scaled"] = network.scale_latents(latents("latents", 2, 4, 2, 3) * 3)
    network.enable_slicing()
    network.enable_tiling()
    network.tile_sample_min_size, network.tile_latent_min_size = 128, 16
    tensors["tiny.tiled.encoded"] = network.encode(pictures("tiled", 1, 160, 136, 3)).latents
    tensors["tiny.tiled.decoded"] = thinned(thinned(network.decode(latents("tiled", 1, 4, 20, 17)).sample))


def bytes_of(tensors):
    values = torch.linspace(-1.1, 1.1, 3 * 20 * 30).view(1, 3, 20, 30)
    images = VaeImageProcessor().postprocess(values, output_type="pil")
    tensors["bytes"] = torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def main():
    networks, tensors = {}, {}
    kl("small", SMALL, networks, tensors)
    kl("deep", DEEP, networks, tensors)
    tiny(networks, tensors)
    bytes_of(tensors)
    configs = networks.pop("configs")
    lines = [f"{json.dumps(name)}: {json.dumps(keys, separators=(',', ':'))}" for name, keys in networks.items()]
    (HERE / "autoencoders.json").write_text("{" + ",\n".join(lines) + "}\n")
    (HERE / "autoencoders-configs.json").write_text(json.dumps(configs, indent=1) + "\n")
    save_file({name: value.contiguous() for name, value in tensors.items()}, HERE / "autoencoders.safetensors")
    for name, value in tensors.items():
        print(name, list(value.shape), f"{value.float().std():.3f}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
