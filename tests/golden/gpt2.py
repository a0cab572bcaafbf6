"""Goldens of GPT-2: transformers' `GPT2LMHeadModel` in small, with weights by formula.

    python tests/golden/gpt2.py        (torch==2.11.0, transformers==5.23.0, numpy, safetensors)

gpt2.json holds the weights' shapes, and what `generate` makes of prompts; gpt2.safetensors hidden states and logits of a text.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

import decoding
import formula

HERE = Path(__file__).parent
ENDS = (15, 100)


def main():
    torch.set_grad_enabled(False)
    config = GPT2Config(n_embd=48, n_layer=3, n_head=6, n_inner=112, vocab_size=160, n_positions=96, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config).eval()
    state = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    shapes = {key: list(value.shape) for key, value in state.items()}
    for key, shape in shapes.items():
        # Three times as large, so that logits depend on the tokens that came before.
        state[key].copy_(torch.from_numpy(formula.weight(key, shape)) * (3 if len(shape) > 1 else 1))
    torch.manual_seed(3)
    text = torch.randint(3, 160, (1, 40))
    out = model(text, output_hidden_states=True)
    prompts = [torch.randint(3, 160, (length,)).tolist() for length in (11, 4, 7)]
    written = decoding.cases(model.generate, prompts, 20, ENDS, 0)
    save_file(
        {"text": text[0], "hidden": torch.stack([out.hidden_states[n][0, 8:] for n in (0, 1, 3)]).contiguous(), "logits": out.logits[0, 8:].contiguous()},
        HERE / "gpt2.safetensors",
    )
    (HERE / "gpt2.json").write_text(json.dumps({"tiny": shapes}) + "\n")
    (HERE / "gpt2-texts.json").write_text(json.dumps(written, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
