#!/usr/bin/env python3
"""SmolLM2 in transformers, on the prompts of benches/text.rs: new tokens a second.

    text.py --shared DIR --model FOLDER --round N

`transformers_*` is `generate` as it is, with its default attention and cache, after prompts padded on the left. DIR holds the prompts' tokens and what
opusflow wrote; `equal_*` is the share of its texts whose tokens are the same in f32.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

TOKENS, CALLS = 64, 3
WAYS = (("1", 1, 1), ("8", 8, 1), ("1_beams", 1, 4))


def main():
    arguments = argparse.ArgumentParser()
    for name in ("--shared", "--model"):
        arguments.add_argument(name, type=Path, required=True)
    arguments.add_argument("--round", type=int, required=True)
    arguments.add_argument("--threads", type=int, default=2)
    args = arguments.parse_args()

    def say(variant, value, unit):
        print(json.dumps({"bench": "text", "variant": variant, "run": args.round, "value": value, "unit": unit}), flush=True)

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    prompts = json.loads((args.shared / "prompts.json").read_text())
    for precision, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
        for way, rows, beams in WAYS:
            longest = max(map(len, prompts[:rows]))
            ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts[:rows]])
            mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts[:rows]])

            def write():
                return model.generate(input_ids=ids, attention_mask=mask, min_new_tokens=TOKENS, max_new_tokens=TOKENS, num_beams=beams,
                                      do_sample=False, pad_token_id=0)[:, longest:].tolist()

            written, taken = write(), []
            for _ in range(CALLS):
                began = time.perf_counter()
                write()
                taken.append(time.perf_counter() - began)
            say(f"transformers_{precision}_{way}", rows * TOKENS / statistics.median(taken), "tokens/s")
            if precision == "f32":
                ours = json.loads((args.shared / f"opusflow_f32_{way}.json").read_text())
                say(f"equal_opusflow_f32_{way}", sum(a == b for a, b in zip(ours, written)) / rows, "texts")


if __name__ == "__main__":
    main()
