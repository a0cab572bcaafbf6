"""Goldens of SigLIP: transformers' whole model on weights by formula, and a small whole folder with its tokenizer.

    python tests/golden/siglip.py        (torch==2.11.0, torchvision==0.26.0, transformers==5.23.0, tokenizers, numpy, safetensors)
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

import disk
import formula

HERE = Path(__file__).parent
LABELS = ["a cat", "a bicycle in the rain", "Don't Panic, 42 times! " * 5, "a street"]
TEMPLATE = "{}: Photo"


def processed(frames, size):
    processor = SiglipImageProcessor(size={"height": size, "width": size})
    return processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]


def whole(out, shapes):
    sizes = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)
    # 34 is no multiple of 8: the last pixels of each row and column belong to no patch.
    config = SiglipConfig(
        text_config=dict(sizes, hidden_size=40, vocab_size=90, max_position_embeddings=11, projection_size=32),
        vision_config=dict(sizes, image_size=34, patch_size=8),
    )
    model, shapes["whole"] = disk.by_formula(SiglipModel(config))
    pixels = processed(formula.film(40, 34, 34)[36:39], 34)
    ids = torch.from_numpy(formula.mixed("siglip", 3 * 11).astype("int64") % 90).view(3, 11)
    run = model(input_ids=ids, pixel_values=pixels)
    seen = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    out["whole.tokens"] = ids
    out["whole.hidden"] = torch.stack(seen.hidden_states[:2])
    out["whole.last"], out["whole.pooled"] = seen.last_hidden_state, seen.pooler_output
    out["whole.image_embeds"], out["whole.text_embeds"] = run.image_embeds, run.text_embeds
    out["whole.probabilities"] = run.logits_per_image.sigmoid()


def tokenizer():
    """Unigrams after words in lower case without punctuation, with an end, as SigLIP's."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    corpus = [TEMPLATE.format(label) for label in LABELS] * 3 + ["a dog on a street", "rain on a window", "panic in the city"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False)
    made.train_from_iterator(corpus, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", made.token_to_id("</s>"))])
    return made


def tiny(out):
    path = HERE / "siglip-tiny"
    path.mkdir(exist_ok=True)
    made = tokenizer()
    made.save(str(path / "tokenizer.json"), pretty=False)
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "pad_token": {"content": "</s>"}, "unk_token": "<unk>"}) + "\n")
    sizes = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64)
    config = SiglipConfig(
        text_config=dict(**sizes, vocab_size=made.get_vocab_size(), max_position_embeddings=24),
        vision_config=dict(sizes, image_size=28, patch_size=7), architectures=["SiglipModel"],
    )
    torch.manual_seed(5)
    model = SiglipModel(config)
    for name, weight in model.named_parameters():
        if "norm" not in name and weight.ndim > 1:
            torch.nn.init.normal_(weight, 0.0, 1.5 * weight[0].numel() ** -0.5)
    model.logit_scale.fill_(1.5)
    model.logit_bias.fill_(-1.0)
    text = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size", "max_position_embeddings")
    image = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "image_size", "patch_size")
    keep = {"architectures": 1, "model_type": 1, "text_config": dict.fromkeys(text), "vision_config": dict.fromkeys(image)}
    model = disk.folder(model, path, keep)
    settings = dict(size={"height": 28, "width": 28}, do_resize=True, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3,
                    do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_processor_type="SiglipImageProcessor")
    (path / "preprocessor_config.json").write_text(json.dumps(settings) + "\n")
    fast = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), eos_token="</s>", pad_token="</s>", unk_token="<unk>")
    texts = fast([TEMPLATE.format(label) for label in LABELS], padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    print(texts["input_ids"])
    run = model(input_ids=texts["input_ids"], pixel_values=processed(formula.film(80, 37, 61)[[0, 38, 79]], 28))
    out["tiny.image_embeds"], out["tiny.text_embeds"] = run.image_embeds, run.text_embeds
    out["tiny.probabilities"] = run.logits_per_image.sigmoid()
    print(out["tiny.probabilities"])


def main():
    out, shapes = {}, {}
    with torch.no_grad():
        whole(out, shapes)
        tiny(out)
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "siglip.safetensors")
    (HERE / "siglip.safetensors").chmod(0o644)
    (HERE / "siglip.json").write_text(json.dumps(shapes) + "\n")
    for key, value in out.items():
        print(key, tuple(value.shape), value.float().abs().mean().item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
