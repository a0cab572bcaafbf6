"""Makes two whole small pipelines with random weights, and what diffusers, the reference, paints with them.

    pip install torch==2.11.0 diffusers==0.42.1 transformers==5.23.0 numpy safetensors
    python tests/golden/stable_diffusion.py

sd-tiny/ is of the family of Stable Diffusion 1.5 (PNDM, guidance, an AutoencoderKL, the tokenizer as vocab.json and merges.txt), sdxl-tiny/
of SDXL-Turbo (Euler ancestral, two text encoders, an AutoencoderTiny, tokenizers as tokenizer.json); sd-tiny with one weight more, by
formula, is a latent consistency model. stable_diffusion.safetensors holds the
tokens and the pictures, which seeds alone decide: the noise is that of torch's generator on a CPU.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerAncestralDiscreteScheduler,
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from formula import film, weight

HERE = Path(__file__).parent
PROMPTS = ["The cat and 2 dogs, in watercolour!", "a  bright STREET by night"]
NEGATIVE = "blurry text"
# More than a text encoder takes; letters that the vocabulary lacks; special tokens written out.
HARD = ["", "the " * 90, "don't <|endoftext|> éa\u00a0\n b!", "日本"]
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
SIZE = 16


def tokenizer(folder, pad):
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789!,.'") + ["Ã", "Â", "©"]
    merges = ["t h", "th e</w>", "a n", "an d</w>", "c a", "ca t</w>", "s t"]
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges] + [BEGIN, END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: at for at, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = lambda text: {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    names = {"bos_token": special(BEGIN), "eos_token": special(END), "unk_token": special(END), "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(names) + "\n")
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def text_encoder(tokens, width, activation, kind):
    end = tokens.convert_tokens_to_ids(END)
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=2,
        hidden_act=activation, projection_dim=10, bos_token_id=end - 1, eos_token_id=end, pad_token_id=tokens.pad_token_id,
    )
    return livelier(kind(config))


def unet(context, **further):
    sizes = dict(
        sample_size=SIZE // 2, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=context,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2,
    )
    return livelier(UNet2DConditionModel(**(sizes | further)))


def livelier(module):
    """Untrained weights are so small that a picture would hardly depend on its prompt."""
    for name, weight in module.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0.0, 1.4 / weight[0].numel() ** 0.5)
    return module.eval()


def halves(folder):
    """Weights as the pipeline's fp16 variant alone, which is half as large."""
    for file in folder.rglob("*.safetensors"):
        assert ".fp16." in file.name, file


def save(pipeline, folder, tokenizers):
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True, variant="fp16")
    for part, saved in tokenizers.items():
        shutil.rmtree(folder / part)
        saved(folder / part)
    halves(folder)


def sd_tiny():
    torch.manual_seed(11)
    folder = HERE / "sd-tiny"
    shutil.rmtree(folder, ignore_errors=True)
    tokens = tokenizer(folder / "tokenizer", END)
    vae = AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=2, layers_per_block=1, sample_size=SIZE,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=livelier(vae), text_encoder=text_encoder(tokens, 12, "quick_gelu", CLIPTextModel), tokenizer=tokens, unet=unet(12),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    # As older folders have it, and most on the hub: without tokenizer.json.
    save(pipeline, folder, {"tokenizer": lambda place: tokenizer(place, END)})
    return folder


def sdxl_tiny():
    torch.manual_seed(12)
    folder = HERE / "sdxl-tiny"
    shutil.rmtree(folder, ignore_errors=True)
    tokens = [tokenizer(folder / "tokenizer", END), tokenizer(folder / "tokenizer_2", "!")]
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing", steps_offset=1
    )
    network = unet(
        8 + 12, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 10, transformer_layers_per_block=(2, 1),
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae.eval(), text_encoder=text_encoder(tokens[0], 8, "quick_gelu", CLIPTextModel),
        text_encoder_2=text_encoder(tokens[1], 12, "gelu", CLIPTextModelWithProjection), tokenizer=tokens[0], tokenizer_2=tokens[1],
        unet=network, scheduler=scheduler, add_watermarker=False,
    )
    save(pipeline, folder, {})
    return folder


def generators(*seeds):
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def pixels(images):
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def paint(folder, text, image):
    """Pictures of the reference, in f32 with the weights as they were saved."""
    load = dict(torch_dtype=torch.float32, variant="fp16", safety_checker=None) if "sdxl" not in str(folder) else dict(torch_dtype=torch.float32, variant="fp16")
    text, image = (kind.from_pretrained(folder, **load) for kind in (text, image))
    text.set_progress_bar_config(disable=True)
    image.set_progress_bar_config(disable=True)
    starts = [Image.fromarray(frame) for frame in film(40, SIZE, SIZE)[[0, 39]]]
    size = dict(height=SIZE, width=SIZE)
    golden = {}
    golden["guided"] = text(
        PROMPTS, negative_prompt=[NEGATIVE, ""], num_inference_steps=4, guidance_scale=7.5, generator=generators(1, 2), **size
    ).images
    golden["plain"] = text(PROMPTS, num_inference_steps=4, guidance_scale=0.0, generator=generators(3, 2**33 + 4), **size).images
    golden["unsaid"] = text(PROMPTS[:1], num_inference_steps=2, guidance_scale=3.0, generator=generators(9), **size).images
    golden["from_image"] = image(
        PROMPTS, image=starts, negative_prompt=[NEGATIVE] * 2, num_inference_steps=5, strength=0.62, guidance_scale=5.0, generator=generators(5, 6)
    ).images
    wide = film(1, 20, 24)
    golden["wide"] = image(
        PROMPTS[1:], image=[Image.fromarray(wide[0])], num_inference_steps=4, strength=1.0, guidance_scale=1.0, generator=generators(7)
    ).images
    for name, images in golden.items():
        print(folder.name, name, pixels(images).float().std(), ((pixels(images) > 0) & (pixels(images) < 255)).float().mean())
    golden = {name: pixels(images) for name, images in golden.items()}
    for part in ("tokenizer", "tokenizer_2"):
        if getattr(text, part, None) is not None:
            tokens = getattr(text, part)(PROMPTS + HARD, padding="max_length", max_length=77, truncation=True)["input_ids"]
            golden[part] = torch.tensor(tokens)
    return golden


def consistent(folder):
    """Pictures of sd-tiny as a latent consistency model: its UNet takes the guidance scale as an input."""
    parts = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, variant="fp16", safety_checker=None).components
    config = {**parts["unet"].config, "time_cond_proj_dim": 6}
    network = UNet2DConditionModel.from_config(config).eval()
    key = "time_embedding.cond_proj.weight"
    network.load_state_dict({**parts["unet"].state_dict(), key: torch.from_numpy(weight(key, (4, 6)))})
    parts |= {"unet": network, "scheduler": LCMScheduler.from_config(parts["scheduler"].config)}
    text, image = (kind(**parts, requires_safety_checker=False) for kind in (LatentConsistencyModelPipeline, LatentConsistencyModelImg2ImgPipeline))
    text.set_progress_bar_config(disable=True)
    image.set_progress_bar_config(disable=True)
    start = [Image.fromarray(film(40, SIZE, SIZE)[39])]
    painted = {
        "plain": text(PROMPTS, num_inference_steps=4, guidance_scale=8.0, generator=generators(1, 2), height=SIZE, width=SIZE).images,
        "from_image": image(PROMPTS[:1], image=start, num_inference_steps=4, strength=0.5, guidance_scale=8.0, generator=generators(3)).images,
    }
    return {f"lcm-tiny.{name}": pixels(images) for name, images in painted.items()}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    golden = {}
    for folder, *kinds in (
        (sd_tiny(), StableDiffusionPipeline, StableDiffusionImg2ImgPipeline),
        (sdxl_tiny(), StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline),
    ):
        golden |= {f"{folder.name}.{key}": value for key, value in paint(folder, *kinds).items()}
    golden |= consistent(HERE / "sd-tiny")
    save_file({key: value.contiguous() for key, value in golden.items()}, HERE / "stable_diffusion.safetensors")
