#!/usr/bin/env python3
"""Whisper tiny in transformers, on the sound and the weights of benches/whisper.rs: seconds of sound in a second.

    whisper.py --shared DIR --model FOLDER --round N

From samples through the processor and `generate` with timestamps to tokens, one window of 30 s a call or four; `words` with the times of
all tokens. DIR holds sound.f32 and the tokens that opusflow wrote, which are compared: the part of the words that are equal.
"""

import argparse
import difflib
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

RATE, LENGTH = 16000, 30
MEASURED = (("words_f32_1", torch.float32, True, 1), ("segments_f32_1", torch.float32, False, 1),
            ("segments_f32_4", torch.float32, False, 4), ("segments_bf16_4", torch.bfloat16, False, 4))


def main():
    arguments = argparse.ArgumentParser()
    for name in ("--shared", "--model"):
        arguments.add_argument(name, type=Path, required=True)
    arguments.add_argument("--round", type=int, required=True)
    args = arguments.parse_args()
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    processor = WhisperProcessor.from_pretrained(args.model)
    samples = np.fromfile(args.shared / "sound.f32", "<f4")
    windows = [samples[at : at + LENGTH * RATE] for at in range(0, len(samples), LENGTH * RATE)]

    def say(variant, value, unit):
        print(json.dumps({"bench": "whisper", "variant": variant, "run": args.round, "value": value, "unit": unit}), flush=True)

    reference = None
    for name, precision, words, together in MEASURED:
        # Anew each time: asked for the times of tokens, it goes over to a slower attention for good.
        model = WhisperForConditionalGeneration.from_pretrained(args.model, dtype=precision).eval()

        def write(some):
            features = processor.feature_extractor(some, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
            features["input_features"] = features.input_features.to(precision)
            result = model.generate(**features, language="en", task="transcribe", return_timestamps=True, return_segments=True,
                                    return_token_timestamps=words, temperature=0.0)
            return [segment["tokens"].tolist() for segments in result["segments"] for segment in segments]

        write([windows[0][:RATE]])
        began = time.perf_counter()
        tokens = [segment for at in range(0, len(windows), together) for segment in write(windows[at : at + together])]
        say(f"transformers_{name}", len(samples) / RATE / (time.perf_counter() - began), "x real time")
        reference = reference or tokens
        text = [token for segment in reference for token in segment if token < model.config.eos_token_id]
        ours = json.loads((args.shared / f"{name}.json").read_text())
        ours = [token for segment in ours for token in segment if token < model.config.eos_token_id]
        say(f"equal_opusflow_{name}", difflib.SequenceMatcher(None, ours, text, autojunk=False).ratio(), "of tokens")


if __name__ == "__main__":
    main()
