"""Makes the golden files of Silero VAD with the package itself: probabilities over the sample film's sound, and the spans of speech in it.

    pip install torch==2.11.0 numpy safetensors && pip install --no-deps silero-vad==6.2.3
    python tests/golden/silero.py films/wannaworktogether.mp4
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from silero_vad import load_silero_vad
from silero_vad.utils_vad import get_speech_timestamps_from_probs

from whisper import RATE, decoded

HERE = Path(__file__).parent
USUAL = dict(threshold=0.5, min_speech_duration_ms=250, min_silence_duration_ms=100, speech_pad_ms=30)
SETTINGS = [USUAL, USUAL | dict(max_speech_duration_s=8), USUAL | dict(threshold=0.7, min_silence_duration_ms=300, speech_pad_ms=200),
            USUAL | dict(max_speech_duration_s=3, speech_pad_ms=100), USUAL | dict(threshold=0.02, max_speech_duration_s=5)]

with torch.no_grad():
    samples = decoded(sys.argv[1])
    probabilities = load_silero_vad().audio_forward(torch.from_numpy(samples), RATE)[0]
    save_file({"probabilities": probabilities.float().contiguous()}, HERE / "silero.safetensors")
    runs = []
    for settings in SETTINGS:
        spans = get_speech_timestamps_from_probs(probabilities.tolist(), audio_length_samples=len(samples), **settings)
        spans = [[span["start"], span["end"]] for span in spans]
        print(settings, len(spans), spans[:5])
        runs.append({"settings": settings, "samples": len(samples), "spans": spans})
    (HERE / "silero.json").write_text(json.dumps(runs, separators=(",", ":")) + "\n")
