"""Prompts made from what is measured in a frame, and the word-level tokenizer that reads them."""

import json
import re

import numpy as np

# Hues in degrees; those without are told by brightness and saturation.
COLOURS = {
    "red": (0, 15), "orange": (15, 40), "yellow": (40, 65), "green": (65, 160), "cyan": (160, 200), "blue": (200, 255), "purple": (255, 300),
    "pink": (300, 345), "brown": None, "white": None, "grey": None, "black": None,
}
# Words for the lowest and the highest part of a figure, over all frames.
SCALES = {
    "brightness": (("very dark", 0.12), ("dark", 0.35), ("bright", 0.65), ("very bright", 0.88)),
    "warmth": (("cold", 0.3), ("warm", 0.7)),
    "vividness": (("pale", 0.3), ("vivid", 0.7)),
    "detail": (("close", 0.35), ("wide", 0.65)),
    "motion": (("still", 0.35), ("moving", 0.65)),
}
BEGIN, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"
LENGTH = 24
# A label is a word of the vocabulary when so many frames have it.
LEAST_FRAMES = 24
COLOUR_SHARE = 0.18


def phrases(facts):
    """For each frame its words, by what they tell of."""
    bounds = {name: [np.quantile([fact[name] for fact in facts], at) for _, at in scale] for name, scale in SCALES.items()}
    counts = {}
    for fact in facts:
        for label in fact.get("labels", []):
            counts[label] = counts.get(label, 0) + 1
    made = []
    for fact in facts:
        words = {}
        for name, scale in SCALES.items():
            half = len(scale) // 2
            low = [word for (word, _), bound in zip(scale[:half], bounds[name]) if fact[name] <= bound]
            high = [word for (word, _), bound in zip(scale[half:], bounds[name][half:]) if fact[name] >= bound]
            if low or high:
                words[name] = low[0] if low else high[-1]
        main = sorted((colour for colour in fact["colours"].items() if colour[1] >= COLOUR_SHARE), key=lambda colour: -colour[1])[:3]
        if main:
            words["colours"] = [name for name, _ in main]
        if labels := [label for label in fact.get("labels", []) if counts[label] >= LEAST_FRAMES]:
            words["labels"] = labels
        made.append(words)
    return made


def prompt(words, random=None):
    """One prompt of a frame's words; with a generator, of some of them in any order, with now and then a word that nobody knows, as a
    caption written by people has."""
    parts = []
    for value in words.values():
        value = value if isinstance(value, list) else [value]
        if random is not None:
            value = [word for word in value if random.random() < 0.75]
        if value:
            parts.append(" and ".join(value))
    if random is not None:
        random.shuffle(parts)
        if random.random() < 0.25:
            for _ in range(random.integers(1, 6)):
                parts.insert(random.integers(0, len(parts) + 1), UNKNOWN)
    return (", " if random is None or random.random() < 0.7 else " ").join(parts)


def vocabulary(made):
    """Every word that a prompt can have, and its token."""
    words = {word for words in made for word in re.findall(r"[a-z0-9]+|,", prompt(words))} | {",", "and"}
    words |= {part for scale in SCALES.values() for word, _ in scale for part in word.split()} | set(COLOURS)
    return {word: token for token, word in enumerate([BEGIN, END, UNKNOWN, *sorted(words)])}


def tokenize(text, words):
    """As tokenizer.json does it, without its library."""
    found = re.findall(r"<\|unknown\|>|[a-z0-9]+|[^\sa-z0-9]", text.lower())
    tokens = [words[BEGIN], *(words.get(word, words[UNKNOWN]) for word in found)][:LENGTH - 1] + [words[END]]
    return tokens + [words[END]] * (LENGTH - len(tokens))


def write_tokenizer(words, folder):
    """The tokenizer in Hugging Face's files."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z0-9]+|[^\sa-z0-9]"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, words[BEGIN]), (END, words[END])])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (BEGIN, END, UNKNOWN)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LENGTH, "bos_token": BEGIN, "eos_token": END, "pad_token": END,
        "unk_token": UNKNOWN}, indent=2) + "\n")
