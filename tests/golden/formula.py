"""Weights and pictures by formula, the same bit for bit here and in src/models/golden.rs, so that nothing big is stored."""

import numpy as np


def mixed(seed: str, count: int) -> np.ndarray:
    """`count` 32-bit numbers that look random: the index plus FNV-1a of `seed`, mixed by lowbias32."""
    start = 0x811C9DC5
    for byte in seed.encode():
        start = ((start ^ byte) * 0x01000193) & 0xFFFFFFFF
    x = np.arange(count, dtype=np.uint32) + np.uint32(start)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def weight(key: str, shape) -> np.ndarray:
    """A tensor of a checkpoint: sizes that keep activations near 1, by the kind of tensor that its key and shape tell."""
    count = int(np.prod(shape)) if len(shape) else 1
    unit = (mixed(key, count) >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    if len(shape) > 1:
        values = unit * np.float32(np.sqrt(6.0 / np.prod(shape[1:])))
    elif key.endswith("running_var"):
        values = np.float32(1) + unit * np.float32(0.5)
    elif key.endswith("weight"):
        values = np.float32(1) + unit * np.float32(0.25)
    else:
        values = unit * np.float32(0.125)
    return values.reshape(shape)


def fill(module) -> dict:
    """Gives a module these weights; returns each key's shape."""
    import torch

    state = module.state_dict()
    shapes = {key: list(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for key, shape in shapes.items():
        state[key] = torch.from_numpy(weight(key, shape))
    module.load_state_dict(state)
    module.eval()
    return shapes


def noise(seed: str, shape) -> np.ndarray:
    """Bytes without structure."""
    return (mixed(seed, int(np.prod(shape))) >> np.uint32(24)).astype(np.uint8).reshape(shape)


def film(frames: int, height: int, width: int) -> np.ndarray:
    """Bytes [frames, height, width, 3]: slanted stripes that drift, with a hard cut every 37 frames and a little noise."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    scene = t // 37
    stripes = (x * (3 + 5 * scene) + y * (7 * scene + 2) + t * (scene % 3 + 1) + c * (60 + 40 * scene)) % 256
    return ((stripes * 15 + noise("film", stripes.shape)) // 16).astype(np.uint8)
