"""Goldens of the seed system's caption decoder: a transformer decoder over the video embedding, in PyTorch, in f32, without a cache.

    python tests/golden/opus_captions.py        (torch==2.11.0, transformers==5.23.0, numpy, safetensors)

opus_captions.json holds the weights' shapes, opus_captions-texts.json what transformers' `generate` makes of prompts over embeddings,
opus_captions.safetensors logits. Weights and embeddings come by formula.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

import decoding
import formula

HERE = Path(__file__).parent
SIZES = {"vocab": 96, "width": 32, "heads": 4, "layers": 3, "intermediate": 56, "positions": 64}
BOS, ENDS = 1, {"learned": (79, 85), "sines": (10, 45)}


class CaptionDecoder(nn.Module):
    """Tokens and their positions, post-norm decoder layers over the video embedding, a projection to the vocabulary."""

    def __init__(self, learned, vocab, width, heads, layers, intermediate, positions):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.learned, self.width, self.positions = learned, width, positions
        if learned:
            self.position_embedding = nn.Embedding(positions, width)
        layer = nn.TransformerDecoderLayer(width, heads, intermediate, activation="gelu", batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.output_proj = nn.Linear(width, vocab)

    def places(self):
        if self.learned:
            return self.position_embedding.weight
        position = torch.arange(self.positions).unsqueeze(1)
        rates = torch.exp(torch.arange(0, self.width, 2) * (-math.log(10000.0) / self.width))
        table = torch.zeros(self.positions, self.width)
        table[:, 0::2], table[:, 1::2] = torch.sin(position * rates), torch.cos(position * rates)
        return table

    def forward(self, tokens, video):
        """Tokens [b, n] and video [b, t, width] to logits [b, n, vocab]."""
        n = tokens.shape[1]
        # With sines the embedding is scaled, as PyTorch's own tutorial has it.
        x = self.embedding(tokens) * (1.0 if self.learned else math.sqrt(self.width)) + self.places()[:n]
        hidden = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
        return self.output_proj(self.decoder(x, video, tgt_mask=hidden))


class Config(PreTrainedConfig):
    model_type = "opus_captions"


class Writing(PreTrainedModel, GenerationMixin):
    """Lends the module to `generate`; it is run anew over the whole text for every token."""

    config_class = Config
    main_input_name = "input_ids"

    def __init__(self, config, module):
        super().__init__(config)
        self.module = module

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, video=None, **_):
        return {"input_ids": input_ids, "attention_mask": attention_mask, "video": video}

    def forward(self, input_ids, attention_mask=None, video=None, **_):
        # The module knows no padding: each text is run for itself, without its own.
        texts = input_ids if attention_mask is None else [row[mask == 1] for row, mask in zip(input_ids, attention_mask)]
        logits = torch.cat([self.module(row[None], own[None])[:, -1:] for row, own in zip(texts, video)])
        return CausalLMOutput(logits=logits)


def golden(name, learned):
    module = CaptionDecoder(learned, **SIZES)
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    for key, value in module.state_dict().items():
        # Three times as large, so that logits depend on the tokens that came before.
        value.copy_(torch.from_numpy(formula.weight(key, value.shape)) * (3 if value.dim() > 1 else 1))
    module.eval()
    video = (torch.from_numpy(formula.noise(name, (3, 5, SIZES["width"]))).float() - 128) / 48
    torch.manual_seed(5)
    text = torch.randint(3, SIZES["vocab"], (2, 24))
    logits = module(text, video[:2])
    apart = (logits[0] - module(text[:1], video[1:2])[0]).norm() / logits[0].norm()
    assert apart > 0.05, f"the video hardly matters: {apart}"
    model = Writing(Config(vocab_size=SIZES["vocab"], num_hidden_layers=0, use_cache=False), module).eval()
    model.generation_config.use_cache = False
    prompts = [[BOS, 33, 52, 7], [BOS], [BOS, 9]]
    at = {tuple(prompt): own for prompt, own in zip(prompts, video)}

    def generate(input_ids, attention_mask, **more):
        own = [at[tuple(row[mask == 1].tolist())] for row, mask in zip(input_ids, attention_mask)]
        return model.generate(input_ids=input_ids, attention_mask=attention_mask, video=torch.stack(own), **more)

    return shapes, {f"{name}.text": text, f"{name}.logits": logits}, generate, prompts


def main():
    torch.set_grad_enabled(False)
    shapes, tensors, texts = {}, {}, {}
    for name, learned in (("learned", True), ("sines", False)):
        shapes[name], out, generate, prompts = golden(name, learned)
        tensors.update(out)
        texts[name] = decoding.cases(generate, prompts, 20, ENDS[name], 0)
    save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "opus_captions.safetensors")
    (HERE / "opus_captions.json").write_text(json.dumps(shapes) + "\n")
    (HERE / "opus_captions-texts.json").write_text(json.dumps(texts, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
