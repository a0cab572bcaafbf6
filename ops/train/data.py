#!/usr/bin/env python3
"""Makes the training data of a film: frames.npy (every frame, 128 x 128) and facts.json (of each frame its shot, whether that is held out,
and what can be measured: brightness, colours, warmth, how close, how still, and the labels that opusflow's encoder gives it)."""

import json
import os
import subprocess
import sys

import numpy as np

from prompts import COLOURS
from work import FILM, ROOT, SIZE, WORK, say

# Every so many shots one is held out, whole.
HELD_OUT = 12
LEAST_LABEL = 0.15


def decode():
    """Every frame, squeezed into a square as opusflow's views are."""
    if (WORK / "frames.npy").exists():
        return np.load(WORK / "frames.npy", mmap_mode="r")
    say("decoding every frame")
    raw = WORK / "frames.rgb"
    subprocess.run(["gst-launch-1.0", "--quiet", "filesrc", f"location={FILM}", "!", "qtdemux", "!", "h264parse", "!", "avdec_h264", "!", "videoscale",
                    "method=lanczos", "add-borders=false", "!", "videoconvert", "!",
                    f"video/x-raw,format=RGB,width={SIZE},height={SIZE},pixel-aspect-ratio=16/9", "!", "filesink", f"location={raw}"], check=True)
    frames = np.fromfile(raw, np.uint8).reshape(-1, SIZE, SIZE, 3)
    np.save(WORK / "frames.draft.npy", frames)
    (WORK / "frames.draft.npy").rename(WORK / "frames.npy")
    raw.unlink()
    return frames


def opusflow():
    """The film's segments and labels, by opusflow itself."""
    out = WORK / "records"
    if not list(out.glob("*/segments.jsonl")):
        say("shots and labels, by opusflow")
        subprocess.run(["target/release/opusflow", "run", "ops/train/film.yaml"], cwd=ROOT, check=True,
                       env={**os.environ, "OPUSFLOW_FILM": str(FILM), "OPUSFLOW_OUT": str(out)})
    def read(name):
        (path,) = out.glob(f"*/{name}.jsonl")
        return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda record: record["meta"]["start"])
    return read("segments"), read("embeddings")


def hsv(frames):
    """Hue in degrees, saturation and value in 0..1."""
    pixels = frames.astype(np.float32) / 255
    most, least = pixels.max(-1), pixels.min(-1)
    spread = most - least
    r, g, b = np.moveaxis(pixels, -1, 0)
    safe = np.where(spread > 0, spread, 1)
    hue = np.where(most == r, (g - b) / safe % 6, np.where(most == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    return hue, np.where(most > 0, spread / np.where(most > 0, most, 1), 0), most


def shares(frames):
    """The part of each frame that has each of COLOURS: `[n, colours]`."""
    hue, saturation, value = hsv(frames)
    grey, dark = saturation < 0.15, value < 0.15
    plain = ~grey & ~dark
    within = {name: plain & (hue >= hues[0]) & (hue < hues[1]) for name, hues in COLOURS.items() if hues}
    within["red"] |= plain & (hue >= 345)
    within["brown"] = (within["orange"] | within["red"]) & (value < 0.5)
    for name in ("orange", "red"):
        within[name] &= ~within["brown"]
    within["black"] = dark
    within["white"] = grey & ~dark & (value > 0.8)
    within["grey"] = grey & ~dark & (value <= 0.8)
    return np.stack([within[name].mean((1, 2)) for name in COLOURS], 1)


def detail(luma):
    """Where a frame's detail lies: the energy of its finest octave over that of the coarser two. Close shots have a soft background."""
    bands, now = [], luma
    for _ in range(3):
        half = now.reshape(len(now), now.shape[1] // 2, 2, now.shape[2] // 2, 2).mean((2, 4))
        bands.append(np.square(now - half.repeat(2, 1).repeat(2, 2)).mean((1, 2)))
        now = half
    return bands[0] / (bands[1] + bands[2] + 1e-6)


def measure(frames):
    """A row of figures for each frame."""
    found = []
    for start in range(0, len(frames), 256):
        part = frames[start:start + 256]
        luma = part.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
        before = frames[max(start - 1, 0):start + len(part) - 1] if start else np.concatenate([part[:1], part[:-1]])
        moved = np.abs(part.astype(np.float32) - before.astype(np.float32)).mean((1, 2, 3)) / 255
        colours, (_, saturation, value) = shares(part), hsv(part)
        fineness = detail(luma)
        warmth = (part[..., 0].astype(np.float32) - part[..., 2]).mean((1, 2)) / 255
        for at in range(len(part)):
            found.append({
                "brightness": float(luma[at].mean()), "warmth": float(warmth[at]), "vividness": float((saturation * value)[at].mean()),
                "detail": float(fineness[at]), "motion": float(moved[at]),
                "colours": {name: round(float(share), 4) for name, share in zip(COLOURS, colours[at]) if share > 0.05},
            })
    return found


def main():
    if (WORK / "facts.json").exists():
        return
    frames = decode()
    segments, embeddings = opusflow()
    say(f"measuring {len(frames)} frames in {len(segments)} shots")
    found = measure(frames)
    rate = len(frames) * 1e9 / segments[-1]["meta"]["end"]
    for number, segment in enumerate(segments):
        first, last = (round(segment["meta"][key] / 1e9 * rate) for key in ("start", "end"))
        shot = found[first:last]
        motion = float(np.median([fact["motion"] for fact in shot[1:]])) if len(shot) > 1 else 0.0
        for fact in shot:
            fact.update(shot=number, held_out=number % HELD_OUT == HELD_OUT // 2, motion=motion)
    for embedding in embeddings:
        labels = [label["name"].split(",")[0].lower() for label in embedding["labels"] if label["score"] >= LEAST_LABEL]
        first = round(embedding["meta"]["start"] / 1e9 * rate)
        for fact in found[first:first + round(rate / 6)]:
            fact["labels"] = labels
    missing = [at for at, fact in enumerate(found) if "shot" not in fact]
    if missing:
        sys.exit(f"train: no shot holds frames {missing[:5]}")
    (WORK / "facts.draft").write_text(json.dumps(found))
    (WORK / "facts.draft").rename(WORK / "facts.json")
    held = sum(fact["held_out"] for fact in found)
    say(f"{len(found) - held} frames to train on, {held} held out")


if __name__ == "__main__":
    main()
