"""Models of transformers with weights by formula under the keys that checkpoints have on disk, which are not always the module's own."""

import json
import tempfile
from pathlib import Path

from safetensors.numpy import load_file, save_file

import formula


def by_formula(model):
    """The model with these weights, and each key's shape."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        shapes = {key: list(value.shape) for key, value in load_file(path).items()}
        save_file({key: formula.weight(key, shape) for key, shape in shapes.items()}, path, metadata={"format": "pt"})
        return type(model).from_pretrained(folder).eval(), shapes


def folder(model, path, keep):
    """Writes the model as a folder, weights in f16 and of config.json what `keep` names; returns it as it is read back."""
    model.half().save_pretrained(path)
    config = json.loads((path / "config.json").read_text())

    def only(config, keep):
        return {key: only(config[key], inner) if isinstance(inner, dict) else config[key] for key, inner in keep.items()}

    (path / "config.json").write_text(json.dumps(only(config, keep), indent=1) + "\n")
    (path / "model.safetensors").chmod(0o644)
    return type(model).from_pretrained(path).float().eval()
