"""Goldens of BLIP: transformers' `BlipForConditionalGeneration` in a small whole folder with its tokenizer.

    python tests/golden/blip.py        (torch==2.11.0, torchvision==0.26.0, transformers==5.23.0, tokenizers, numpy, safetensors)

blip-tiny/ is the folder; blip.safetensors holds hidden states of the image tower and logits, blip-texts.json what `generate` makes of pictures,
from nothing and from what a caption begins with.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BlipConfig, BlipForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.blip.image_processing_blip import BlipImageProcessor

import decoding
import disk
import formula

HERE = Path(__file__).parent
WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] a an the of in on at with and is are two three man woman dog cat car street house tree water sky
photo picture close up view black white red green blue small large young old holding standing sitting riding playing eating next to front
field beach snow table bench bicycle train bus horse ball ##s ##ing ##ed ##er ##ly , . ' - light night day""".split()
BEGINNINGS = ["A photo of", "", "the dogs"]
SEED, SCALE, END = 4, 2.5, 6.0


def tokenizer():
    """Word pieces in lower case, as BERT's."""
    vocabulary = {word: at for at, word in enumerate(WORDS)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(WORDS[:5])
    return made


def model(path):
    made = tokenizer()
    path.mkdir(exist_ok=True)
    made.save(str(path / "tokenizer.json"), pretty=False)
    # As in the real model, the token that starts a text is none of the tokenizer's.
    text = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48, vocab_size=len(WORDS) + 2,
                max_position_embeddings=48, bos_token_id=len(WORDS), eos_token_id=2, sep_token_id=3, pad_token_id=0)
    image = dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=40, image_size=34, patch_size=8)
    config = BlipConfig(text_config=text, vision_config=image, architectures=["BlipForConditionalGeneration"])
    torch.manual_seed(SEED)
    network = BlipForConditionalGeneration(config)
    for name, weight in network.named_parameters():
        scale = SCALE * weight[0].numel() ** -0.5 if weight.ndim > 1 and "position_embedding" not in name else 0.2
        torch.nn.init.normal_(weight, 1.0 if "norm" in name.lower() and "weight" in name else 0.0, scale)
    # So that texts end.
    network.text_decoder.cls.predictions.bias[3] += END
    keep = {"architectures": 1, "model_type": 1, "text_config": dict.fromkeys([*text, "tie_word_embeddings"]), "vision_config": dict.fromkeys(image)}
    network = disk.folder(network, path, keep)
    settings = dict(do_normalize=True, do_rescale=True, do_resize=True, image_mean=BlipImageProcessor.image_mean, image_std=BlipImageProcessor.image_std,
                    resample=3, rescale_factor=1 / 255, size={"height": 34, "width": 34}, image_processor_type="BlipImageProcessor")
    (path / "preprocessor_config.json").write_text(json.dumps(settings) + "\n")
    return network, made


def pixels(frames):
    processor = BlipImageProcessor(size={"height": 34, "width": 34})
    return processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]


def run(network, made):
    # Another size than the network's, so that they are scaled.
    pictures = pixels(formula.film(80, 53, 71)[[0, 38, 79]])
    seen = network.vision_model(pixel_values=pictures, output_hidden_states=True)
    out = {"hidden": torch.stack(seen.hidden_states), "seen": seen.last_hidden_state}
    start = network.config.text_config.bos_token_id
    prompts = [[start, *made.encode(text, add_special_tokens=False).ids] for text in BEGINNINGS]
    torch.manual_seed(2)
    out["text"] = torch.cat([torch.full((3, 1), start), torch.randint(5, len(WORDS), (3, 15))], 1)
    out["logits"] = network.text_decoder(out["text"], encoder_hidden_states=out["seen"]).logits
    swapped = network.text_decoder(out["text"], encoder_hidden_states=out["seen"].flip(0)).logits
    apart = ((swapped - out["logits"])[0].norm() / out["logits"][0].norm()).item()
    assert apart > 0.05, f"the picture hardly matters: {apart}"
    at = {tuple(prompt): number for number, prompt in enumerate(prompts)}

    def generate(input_ids, attention_mask, **more):
        own = torch.stack([out["seen"][at[tuple(row[mask == 1].tolist())]] for row, mask in zip(input_ids, attention_mask)])
        return network.text_decoder.generate(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=own,
            encoder_attention_mask=torch.ones(own.shape[:-1], dtype=torch.long), **more,
        )

    return out, prompts, generate, pictures


def main():
    torch.set_grad_enabled(False)
    network, made = model(HERE / "blip-tiny")
    out, prompts, generate, pictures = run(network, made)
    texts = decoding.cases(generate, prompts, 16, (3,), 0)
    texts["begin"] = BEGINNINGS
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    # The whole model's own way from pictures to texts, for the greedy case and for beams.
    texts["captions"] = []
    for options in ({}, {"num_beams": 4}):
        captions = []
        for number, begin in enumerate(BEGINNINGS):
            ids = fast(begin, return_tensors="pt") if begin else {}
            ids.pop("token_type_ids", None)
            tokens = network.generate(pixel_values=pictures[number : number + 1], **ids, max_new_tokens=16, **options)
            captions.append(fast.decode(tokens[0], skip_special_tokens=True))
        print(options, captions)
        texts["captions"].append({"options": options, "texts": captions})
    save_file({key: value.contiguous() for key, value in out.items()}, HERE / "blip.safetensors")
    (HERE / "blip.safetensors").chmod(0o644)
    (HERE / "blip-texts.json").write_text(json.dumps(texts, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
