"""What windows cost in exactness: cuts of a clip with context against attention over all of it, on the large config.

    python benchmarks/windows.py [--seconds 60] [--checkpoint DIR]

Weights are random unless a checkpoint is given, and real ones attend differently: measure again on them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from emotion_app.engine import Engine
from emotion_app.models import WindowPlan
from emotion_app.models.loader import calm_threads, load_model
from emotion_app.models.precision import trial_clips
from emotion_app.settings import Settings
from emotion_app.types import Floats, FrameOutput, Waveform

PLANS = ((30, 5), (30, 3), (30, 2), (20, 3), (10, 5), (30, 0))


def softmax(x: Floats) -> Floats:
    """Rows to scores."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def compare(full: FrameOutput, cut: FrameOutput) -> dict[str, float]:
    """Differences of features (relative to their root mean square), frame scores, a 1 s timeline, and the utterance."""
    smooth = np.ones(50) / 50
    lines = [np.stack([np.convolve(c, smooth, "valid") for c in softmax(o.logits).T]) for o in (full, cut)]
    frames = softmax(full.logits), softmax(cut.logits)
    return {
        "features_rms": float(np.sqrt(((full.features - cut.features) ** 2).mean() / (full.features**2).mean())),
        "frame_scores_max": float(np.abs(frames[0] - frames[1]).max()),
        "frame_labels_changed": float((frames[0].argmax(1) != frames[1].argmax(1)).mean()),
        "timeline_max": float(np.abs(lines[0] - lines[1]).max()),
        "utterance_max": float(np.abs(softmax(full.logits.mean(0)) - softmax(cut.logits.mean(0))).max()),
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--checkpoint", type=Path)
    asked = parser.parse_args()
    calm_threads()
    with tempfile.TemporaryDirectory(prefix="emotion-bench-") as temporary:
        directory = asked.checkpoint
        if directory is None:
            from emotion_app.testing import write_checkpoint

            directory = write_checkpoint(Path(temporary) / "large", "large")
        settings = Settings(models_dir=Path(temporary) / "models", precision="fp32", offline=True, device="cpu")
        model = load_model(str(directory), settings)
        voices = np.concatenate(trial_clips(directory))
        wave = Waveform(np.tile(voices, 1 + int(asked.seconds))[: int(asked.seconds * 16_000)])
        found = {}
        for body, context in ((asked.seconds, 0), *PLANS):
            model.plan = replace(WindowPlan(0, body, context), whole_s=body if body == asked.seconds else 0)
            start = time.process_time()
            answer = Engine(model).run([wave], features=True)[0]
            spent = time.process_time() - start
            if body == asked.seconds:
                full, whole = answer, spent
                print(f"all {body:g} s at once: {spent:.1f} CPU s")
                continue
            found[f"{body}+2x{context}"] = row = compare(full, answer)
            facts = "  ".join(f"{key} {value:.2g}" for key, value in row.items())
            print(f"{body:g} s + 2 x {context:g} s: {spent:.1f} CPU s ({spent / whole:.2f})  {facts}", flush=True)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
