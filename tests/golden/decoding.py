"""What transformers' `generate` makes of prompts, greedily and by beams, alone and in one ragged batch; used by the scripts of the networks."""

import torch

# The ways of writing that every decoder is held to, in the words of `generate`.
CASES = [
    {},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 9},
    {"num_beams": 4, "num_return_sequences": 4},
    {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.0, "early_stopping": True},
    {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 4, "num_return_sequences": 1, "length_penalty": -1.0},
    {"num_beams": 2, "num_return_sequences": 2, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 9},
]


def cut(row, ends):
    """The tokens before the first that ends the text."""
    found = []
    for token in row:
        if token in ends:
            break
        found.append(token)
    return found


def write(generate, prompts, max_new_tokens, ends, pad, options):
    """The texts of each prompt, of all in one batch, and where beams are searched their scores."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, eos_token_id=list(ends), pad_token_id=pad, do_sample=False,
        return_dict_in_generate=True, output_scores=True, **options,
    )
    each = options.get("num_return_sequences", 1)
    texts = [cut(row[longest:].tolist(), ends) for row in out.sequences]
    scores = [round(float(s), 5) for s in out.sequences_scores] if "num_beams" in options else [None] * len(texts)
    per_prompt = range(0, len(texts), each)
    return [texts[at : at + each] for at in per_prompt], [scores[at : at + each] for at in per_prompt]


def cases(generate, prompts, max_new_tokens, ends, pad, all_options=CASES):
    """What each case gives for each prompt alone; a batch of all of them must give the same."""
    found = []
    for options in all_options:
        alone = [write(generate, [prompt], max_new_tokens, ends, pad, options) for prompt in prompts]
        texts, scores = [a[0][0] for a in alone], [a[1][0] for a in alone]
        together, _ = write(generate, prompts, max_new_tokens, ends, pad, options)
        assert together == texts, (options, together, texts)
        lengths = [[len(text) for text in variants] for variants in texts]
        print(options, "lengths", lengths)
        found.append({"options": options, "texts": texts, "scores": scores})
    return {"prompts": prompts, "max_new_tokens": max_new_tokens, "ends": list(ends), "cases": found}
