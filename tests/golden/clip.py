"""Goldens of CLIP: transformers' towers on weights by formula.

    python tests/golden/clip.py        (torch==2.11.0, transformers==5.23.0, numpy, safetensors)
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import formula

HERE = Path(__file__).parent


def fill(module, prefix=""):
    """Gives a module the weights by formula of its keys on disk, which begin with `prefix`; returns each key's shape."""
    state = module.state_dict()
    shapes = {prefix + key: list(value.shape) for key, value in state.items()}
    module.load_state_dict({key: torch.from_numpy(formula.weight(prefix + key, list(value.shape))) for key, value in state.items()})
    module.eval()
    return shapes


def tokens(name, rows, length, vocabulary, ends):
    """Texts of numbers by formula, `ends` written at the places given."""
    text = torch.from_numpy(formula.mixed(name, rows * length).astype("int64") % (vocabulary - 10)).view(rows, length)
    for row, at, token in ends:
        text[row, at] = token
    return text


def text(out, shapes):
    sizes = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=48, vocab_size=90, max_position_embeddings=13)
    # The highest number, which ends the text, may come again: the first counts.
    legacy = tokens("legacy", 3, 13, 90, [(0, 4, 89), (0, 7, 89), (1, 12, 89), (2, 0, 89)])
    # 85 ends the text here, and higher numbers do not; the last row has no end.
    first = tokens("first", 3, 9, 90, [(0, 3, 89), (0, 5, 85), (0, 6, 85), (1, 8, 85), (2, 2, 89)])
    plain = CLIPTextModel(CLIPTextConfig(**sizes, hidden_act="quick_gelu", eos_token_id=2))
    shapes["text_plain"] = fill(plain, "text_model.")
    projecting = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, hidden_act="gelu", eos_token_id=85, projection_dim=20))
    shapes["text_projecting"] = fill(projecting)
    for name, model, ids in (("text_plain", plain, legacy), ("text_projecting", projecting, first)):
        run = model(ids, output_hidden_states=True)
        out[f"{name}.tokens"] = ids
        out[f"{name}.hidden"] = torch.stack(run.hidden_states)
        out[f"{name}.last"] = run.last_hidden_state
    out["text_plain.pooled"] = plain(legacy).pooler_output
    out["text_projecting.pooled"] = projecting.text_model(first).pooler_output
    out["text_projecting.projected"] = projecting(first).text_embeds


def main():
    out, shapes = {}, {}
    with torch.no_grad():
        text(out, shapes)
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "clip.safetensors")
    (HERE / "clip.json").write_text(json.dumps(shapes) + "\n")
    for key, value in out.items():
        print(key, tuple(value.shape), value.float().abs().mean().item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
