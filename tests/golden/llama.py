"""Makes the golden files of the Llama family's decoders and of a tokenizer with transformers, the reference.

    pip install torch==2.11.0 transformers==5.23.0 numpy safetensors
    python tests/golden/llama.py models/SmolLM2-135M-Instruct

llama-tiny/ is a whole random model (grouped queries, tied output, llama3 scaling) with its logits, and so are those of the family's other
members; llama-tiny-texts.json holds what `generate` makes of prompts; llama-smollm2.json what transformers makes of the trained model: rendered
chats, tokens of hard strings, greedy continuations in f32; llama-smollm2-beams.json its beams.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM,
    Qwen3Config, Qwen3ForCausalLM)

import decoding

HERE = Path(__file__).parent
CHATS = [
    (None, "One caption for a shot of a bicycle, a street and a dog."),
    (None, "Explain in a few paragraphs why the sky is blue."),
    ("You are a newsreader who tells every story at length.", "  Tell the whole story of the floods in the valley, day by day.\n"),
    (None, "Write a story about a lighthouse keeper who finds a map."),
    ("Antworte auf Deutsch.", "Was ist ein Stausee? Zähle fünf Eigenschaften auf <b>& erkläre</b> sie."),
]
HARD = [
    "",
    " ",
    "\n\n\t  leading and trailing  \n",
    "naïve façade — “quotes” … £5 ½ 2024-11-23T13:48:22Z 1234567890",
    "日本語のテキスト、한국어 텍스트, русский текст, العربية, हिन्दी",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u00a0 \u200b \ufffd \U0001f9ff",
    "def f(x):\n    return x**2  # don't, we'll, I'M\r\n\x00\x7f",
    "<|im_start|>user\nhello<|im_end|>\n<|endoftext|><|im_start",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
         "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2}
MEMBERS = {
    "llama": (7, LlamaForCausalLM, LlamaConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=8, vocab_size=160,
        max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 128})),
    "llama-biased": (8, LlamaForCausalLM, LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True)),
    "mistral": (9, MistralForCausalLM, MistralConfig(**SMALL, head_dim=16, sliding_window=256)),
    "qwen2": (10, Qwen2ForCausalLM, Qwen2Config(**SMALL, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "qwen3": (11, Qwen3ForCausalLM, Qwen3Config(**SMALL, head_dim=16, attention_bias=True)),
}


def tiny(name):
    seed, network, config = MEMBERS[name]
    torch.manual_seed(seed)
    model = network(config).eval()
    # The initial weights are so small that logits would hardly depend on the tokens.
    for key, weight in model.named_parameters():
        torch.nn.init.normal_(weight, 1.0 if "norm" in key else 0.0, 0.3)
    folder = HERE / f"{name}-tiny"
    folder.mkdir(exist_ok=True)
    weights = {k: v.to(torch.float16) for k, v in model.state_dict().items() if k != "lm_head.weight" or not config.tie_word_embeddings}
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    model.tie_weights()
    config.architectures = [network.__name__]
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n")
    prompt = torch.randint(3, config.vocab_size, (1, 150))
    steps = torch.randint(3, config.vocab_size, (1, 12))
    every = torch.cat([prompt, steps], 1)
    logits = model(every).logits[0]
    short = model(prompt[:, :5]).logits[0, -1]
    save_file(
        {"prompt": prompt[0], "steps": steps[0], "logits": logits[prompt.shape[1] - 1 :].contiguous(), "short": short.contiguous()},
        HERE / f"{name}-tiny-golden.safetensors",
    )


def tiny_texts():
    model = LlamaForCausalLM.from_pretrained(HERE / "llama-tiny", dtype=torch.float32).eval()
    torch.manual_seed(11)
    prompts = [torch.randint(3, 160, (length,)).tolist() for length in (13, 5, 9)]
    save_json("llama-tiny-texts.json", decoding.cases(model.generate, prompts, 20, (24, 98), 0))


def smollm2_beams(folder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = []
    for system, prompt in (CHATS[0], CHATS[4]):
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": prompt})
        prompts.append(tokenizer(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), add_special_tokens=False)["input_ids"])
    ways = [{"num_beams": 4, "num_return_sequences": 4}, {"num_beams": 4, "length_penalty": 0.5, "early_stopping": True, "no_repeat_ngram_size": 3}]
    save_json("llama-smollm2-beams.json", decoding.cases(model.generate, prompts, 32, (tokenizer.eos_token_id,), 0, ways))


def save_json(name, content):
    (HERE / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


def smollm2(folder):
    # Not AutoTokenizer: since version 5 it builds GPT-2's tokenizer anew and passes over the splitting of digits in tokenizer.json.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chats = []
    for system, prompt in CHATS:
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": prompt})
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        both = model.generate(torch.tensor([tokens]), max_new_tokens=80, do_sample=False)[0]
        new = both[len(tokens) :].tolist()
        ended = new[-1] == tokenizer.eos_token_id
        new = new[:-1] if ended else new
        text = tokenizer.decode(new, skip_special_tokens=True)
        print(len(tokens), len(new), ended, repr(text))
        chats.append({"system": system, "prompt": prompt, "rendered": rendered, "tokens": tokens, "new": new, "ended": ended, "text": text})
    hard = [{"text": text, "tokens": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in HARD]
    golden = {"chats": chats, "hard": hard}
    (HERE / "llama-smollm2.json").write_text(json.dumps(golden, ensure_ascii=True, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        for name in MEMBERS:
            tiny(name)
        tiny_texts()
        smollm2(sys.argv[1])
        smollm2_beams(sys.argv[1])
