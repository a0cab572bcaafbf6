"""Makes the golden files of Whisper with transformers, the reference.

    pip install torch==2.11.0 transformers==5.23.0 numpy safetensors
    python tests/golden/whisper.py models/whisper-tiny films/wannaworktogether.mp4

A random model in small (weights and sound by formula): spectrograms, what the encoder gives, logits, a greedy text with its times.
Whisper tiny in full on windows of the film's sound, which GStreamer decodes: tokens, times, words, probabilities.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from formula import fill, noise, weight

HERE = Path(__file__).parent
RATE = 16000
# Words below 100, then the end, the start, four languages, two tasks, two unused, nobody speaks, no timestamps, 51 timestamps.
END, START, FIRST_TIME = 100, 101, 112
SMALL = dict(vocab_size=FIRST_TIME + 51, num_mel_bins=80, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48,
             decoder_layers=3, decoder_attention_heads=4, decoder_ffn_dim=64, max_source_positions=50, max_target_positions=72,
             pad_token_id=END, bos_token_id=END, eos_token_id=END, decoder_start_token_id=START)
TOKENS = dict(decoder_start_token_id=START, eos_token_id=END, bos_token_id=END, pad_token_id=END, no_timestamps_token_id=FIRST_TIME - 1,
              lang_to_id={"<|en|>": 102, "<|de|>": 103, "<|fr|>": 104, "<|ja|>": 105}, task_to_id={"translate": 106, "transcribe": 107},
              suppress_tokens=[3, 5, 7, 31, 146, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110], begin_suppress_tokens=[20, END],
              max_initial_timestamp_index=10, alignment_heads=[[1, 0], [2, 1], [2, 3]], is_multilingual=True, max_length=72)
# Where a window begins and ends in the film, in seconds, and what is asked for.
WINDOWS = [(0, 30, {}), (60, 90, {}), (90, 120, {"language": "en", "task": "translate"}), (120.5, 132.25, {"language": "en"}),
           (30, 38, {"language": "ja"}), (60, 75, {"language": "de"}), (150, 180, {}),
           (90, 120, {"language": "en", "prompt": "LUCKILY, THERE'S AN ANSWER. CREATIVE COMMONS PROVIDES FREE LICENSES."}),
           (0, 30, {"language": "en", "remember": True})]


def sound(seed, count):
    """Noise that swells and falls, the same bit for bit in Rust."""
    samples = (noise(seed, [count]).astype(np.float32) - np.float32(127.5)) / np.float32(128)
    loudness = np.array([0.5, 0.03125, 1.0, 0.125], np.float32)[np.arange(count) // 4000 % 4]
    return samples * loudness


def small():
    model = WhisperForConditionalGeneration(WhisperConfig(**SMALL))
    shapes = {key: shape for key, shape in fill(model).items() if key != "proj_out.weight"}
    # The output layer is the table of tokens, which was filled under both names.
    table = "model.decoder.embed_tokens.weight"
    model.get_parameter(table).copy_(torch.from_numpy(weight(table, shapes[table])))
    (HERE / "whisper.json").write_text(json.dumps({"small": shapes}, separators=(",", ":")) + "\n")
    model.generation_config = GenerationConfig(**TOKENS)
    goldens = {}
    mel = {bands: WhisperFeatureExtractor(feature_size=bands, chunk_length=1) for bands in (80, 128)}
    for bands, extractor in mel.items():
        samples = sound("mel", 15970)
        features = extractor(samples, sampling_rate=RATE, return_tensors="pt", padding="longest", truncation=False).input_features[0]
        goldens[f"mel.{bands}"] = features.contiguous()
    features = mel[80]([sound("one", RATE), sound("two", RATE)], sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
    encoded = model.model.encoder(features.input_features).last_hidden_state
    goldens["encoded"] = encoded
    tokens = torch.tensor([[START, 103, 107, 112, 9, 61, 33, 130], [START, 102, 106, 115, 80, 2, 150, 150]])
    goldens["tokens"] = tokens
    goldens["logits"] = model(encoder_outputs=(encoded,), decoder_input_ids=tokens).logits
    first = model(encoder_outputs=(encoded,), decoder_input_ids=tokens[:, :1]).logits[:, -1]
    languages = first[:, 102:106].softmax(-1)
    assert (model.detect_language(features.input_features) - 102).tolist() == languages.argmax(-1).tolist()
    goldens["languages"] = languages
    goldens["no_speech"] = first.softmax(-1)[:, 110]
    written = model.generate(**features, language="de", task="transcribe", return_timestamps=True, return_token_timestamps=True,
                             return_dict_in_generate=True, force_unique_generate_call=True, temperature=0.0)
    goldens["written"] = written["sequences"][:, 3:]
    goldens["times"] = written["token_timestamps"][:, 3:]
    for row, sequence in enumerate(written["sequences"][:, 3:]):
        ends = (sequence == END).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(sequence)
        scores = [score[row] for score in written["scores"][:length]]
        goldens[f"log_probability.{row}"] = model._retrieve_avg_logprobs(scores, sequence[:length], 0.0).reshape(1)
        print("small", row, length, sequence.tolist())
    save_file({key: value.contiguous() for key, value in goldens.items()}, HERE / "whisper.safetensors")


def decoded(film):
    """The film's sound as the Rust tests have it."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(f"gst-launch-1.0 -q filesrc location={film} ! qtdemux ! audio/mpeg ! aacparse ! avdec_aac ! audioconvert "
                       f"! audioresample ! audio/x-raw,format=F32LE,rate={RATE},channels=1,layout=interleaved "
                       f"! filesink location={file.name}".split(), check=True)
        return np.fromfile(file.name, "<f4")


def film(folder, path):
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    samples = decoded(path)
    windows = []
    for start, end, asked in WINDOWS:
        language, task, prompt = asked.get("language"), asked.get("task", "transcribe"), asked.get("prompt")
        heard = samples[int(start * RATE) : int(end * RATE)]
        features = processor.feature_extractor(heard, sampling_rate=RATE, return_tensors="pt", truncation=False, padding="longest",
                                               return_attention_mask=True)
        result = model.generate(**features, language=language, task=task, return_timestamps=True, return_token_timestamps=True,
                                return_segments=True, temperature=0.0, condition_on_prev_tokens=asked.get("remember", False),
                                prompt_ids=processor.get_prompt_ids(prompt, return_tensors="pt") if prompt else None)
        found = language or tokenizer.decode(model.detect_language(features.input_features))[2:-2]
        segments = []
        for segment in result["segments"][0]:
            tokens, times = segment["tokens"].tolist(), segment["token_timestamps"].tolist()
            places = [at for at, token in enumerate(tokens) if token < tokenizer.eos_token_id]
            if not places:
                continue
            text = [tokens[at] for at in places]
            spoken = "english" if task == "translate" else LANGUAGES[found]
            words, _, indices = _combine_tokens_into_words(tokenizer, text, spoken)
            words = [[word, round(times[places[own[0]] - 1], 2), round(times[places[own[-1]]], 2)] for word, own in zip(words, indices)]
            output = segment["result"]
            written = output["sequences"][-len(output["scores"]) :]
            segments.append({"start": round(float(segment["start"]), 2), "end": round(float(segment["end"]), 2), "tokens": tokens,
                             "text": tokenizer.decode(text), "words": words,
                             "log_probability": float(model._retrieve_avg_logprobs(output["scores"], written, 0.0)),
                             "compression_ratio": model._retrieve_compression_ratio(written, model.config.vocab_size)})
        print(start, end, found, task, *[(s["start"], s["end"], s["text"], s["log_probability"], s["compression_ratio"]) for s in segments], sep="\n  ")
        windows.append({"start": start, "end": end, "asked": asked, "language": found, "segments": segments})
    (HERE / "whisper-film.json").write_text(json.dumps(windows, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        small()
        film(*sys.argv[1:])
