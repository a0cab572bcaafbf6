"""Goldens of CLIP: transformers' towers and whole models on weights by formula, and a small whole folder with its tokenizer.

    python tests/golden/clip.py        (torch==2.11.0, torchvision==0.26.0, transformers==5.23.0, tokenizers, numpy, safetensors)

clip-tiny/ is a model as the hub has them; clip.safetensors holds what transformers makes of its labels and of frames of another size.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_clip import CLIPImageProcessor

import disk
import formula

HERE = Path(__file__).parent
LABELS = ["a cat", "a bicycle in the rain", "Don't Panic, 42 times! " * 5, "naïve café"]
TEMPLATE = "a photo of {}"


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
    plain, shapes["text_plain"] = disk.by_formula(plain)
    projecting = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, hidden_act="gelu", eos_token_id=85, projection_dim=20))
    projecting, shapes["text_projecting"] = disk.by_formula(projecting)
    for name, model, ids in (("text_plain", plain, legacy), ("text_projecting", projecting, first)):
        run = model(ids, output_hidden_states=True)
        out[f"{name}.tokens"] = ids
        out[f"{name}.hidden"] = torch.stack(run.hidden_states)
        out[f"{name}.last"] = run.last_hidden_state
    out["text_plain.pooled"] = plain(legacy).pooler_output
    out["text_projecting.pooled"] = projecting.text_model(first).pooler_output
    out["text_projecting.projected"] = projecting(first).text_embeds


def normalised(frames):
    """Bytes [n, h, w, 3] as CLIP's image processor normalises them."""
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    return processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]


def whole(out, shapes):
    sizes = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=48)
    config = CLIPConfig(
        text_config=dict(**sizes, vocab_size=90, max_position_embeddings=13, eos_token_id=85),
        vision_config=dict(sizes, hidden_size=48, image_size=32, patch_size=8), projection_dim=20,
    )
    model, shapes["whole"] = disk.by_formula(CLIPModel(config))
    pixels = normalised(formula.film(40, 32, 32)[36:39])
    run = model(input_ids=out["text_projecting.tokens"], pixel_values=pixels)
    seen = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    # What goes into the last layer is the last that is made of every place.
    out["whole.hidden"] = torch.stack(seen.hidden_states[:3])
    out["whole.pooled"] = seen.pooler_output
    out["whole.image_embeds"], out["whole.text_embeds"] = run.image_embeds, run.text_embeds
    out["whole.probabilities"] = run.logits_per_image.softmax(-1)


def tokenizer():
    """A byte-level BPE as CLIP's, with few merges."""
    made = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    corpus = [TEMPLATE.format(label) for label in LABELS] * 3 + ["a dog on a street", "rain on a window", "panic in the city"]
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False, end_of_word_suffix="</w>", initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"))
    made.train_from_iterator(corpus, trainer)
    made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    ends = [(token, made.token_to_id(token)) for token in ("<|endoftext|>", "<|startoftext|>")]
    made.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    return made


def tiny(out):
    """A folder as the hub has them."""
    path = HERE / "clip-tiny"
    path.mkdir(exist_ok=True)
    made = tokenizer()
    # Files often carry padding and truncation of another use.
    made.enable_padding(length=5, pad_token="<|endoftext|>")
    made.save(str(path / "tokenizer.json"), pretty=False)
    end = made.token_to_id("<|endoftext|>")
    sizes = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64)
    config = CLIPConfig(
        text_config=dict(**sizes, vocab_size=made.get_vocab_size(), max_position_embeddings=24, eos_token_id=end),
        vision_config=dict(sizes, hidden_size=40, image_size=28, patch_size=7), projection_dim=16, architectures=["CLIPModel"],
    )
    torch.manual_seed(4)
    model = CLIPModel(config)
    # The initial weights are so small that all pictures and all labels would be alike.
    for name, weight in model.named_parameters():
        if "norm" not in name and weight.ndim > 1:
            torch.nn.init.normal_(weight, 0.0, 1.5 * weight[0].numel() ** -0.5)
    text = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size", "max_position_embeddings", "eos_token_id")
    image = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "image_size", "patch_size")
    keep = {"architectures": 1, "model_type": 1, "projection_dim": 1, "text_config": dict.fromkeys(text), "vision_config": dict.fromkeys(image)}
    model = disk.folder(model, path, keep)
    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    settings = dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, do_resize=True, do_center_crop=True, resample=3,
                    image_mean=processor.image_mean, image_std=processor.image_std, rescale_factor=1 / 255, image_processor_type="CLIPImageProcessor")
    (path / "preprocessor_config.json").write_text(json.dumps(settings) + "\n")
    special = dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>")
    fast = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), **special)
    texts = fast([TEMPLATE.format(label) for label in LABELS], padding=True, truncation=True, max_length=24, return_tensors="pt")
    print(texts["input_ids"])
    frames = formula.film(80, 37, 61)[[0, 38, 79]]
    pixels = processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    run = model(input_ids=texts["input_ids"], attention_mask=texts["attention_mask"], pixel_values=pixels)
    out["tiny.image_embeds"], out["tiny.text_embeds"] = run.image_embeds, run.text_embeds
    out["tiny.probabilities"] = run.logits_per_image.softmax(-1)
    print(out["tiny.probabilities"])


def main():
    out, shapes = {}, {}
    with torch.no_grad():
        text(out, shapes)
        whole(out, shapes)
        tiny(out)
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "clip.safetensors")
    (HERE / "clip.safetensors").chmod(0o644)
    (HERE / "clip.json").write_text(json.dumps(shapes) + "\n")
    for key, value in out.items():
        print(key, tuple(value.shape), value.float().abs().mean().item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
