"""What the windows of the embedded model do to long recordings, by labelled clips put one after the other.

    python benchmarks/long_clips.py corpora/manifest.csv
    python benchmarks/long_clips.py corpora/manifest.csv --weights work/run/lite.safetensors

``changing``: sixty clips of one speaker in any order, half a second between them; each clip answered by the mean of its
frames. ``one feeling``: four clips of one speaker and class, answered as a whole. UAR in percent among the corpus' own
classes, and how many times faster than the recording, CPU time. The first row has every clip by itself.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_app.engine import Engine
from emotion_app.models import WindowPlan
from emotion_app.models.lite import PLAN, WEIGHTS, LiteModel, load_lite
from emotion_app.types import SAMPLE_RATE, Floats, Waveform
from training import manifest, waves
from training.manifest import Clip

PLANS = [PLAN, *(WindowPlan(*plan) for plan in ((8, 5, 1.5), (8, 3, 1), (5, 4, 0.5), (4, 3, 0.5), (3, 2, 0.5)))]
SPLITS = ("test", "cross_dev")
Part = tuple[Clip, int, int]  # first and last sample within a recording


def joined(clips: Sequence[Clip], gap_s: float) -> tuple[Floats, list[Part]]:
    """Clips of equal level with silence after each, and where they are."""
    pieces, parts, at = [], [], 0
    for clip in clips:
        samples = waves.read(clip.path)
        samples = 0.05 * samples / np.sqrt(np.mean(samples**2) + 1e-9)
        parts.append((clip, at, at + len(samples)))
        pieces += [samples, np.zeros(int(gap_s * SAMPLE_RATE))]
        at += len(samples) + len(pieces[-1])
    return np.concatenate(pieces).astype(np.float32), parts


def recordings(clips: list[Clip]) -> dict[str, list[tuple[Floats, list[Part]]]]:
    """Both kinds."""
    rng = np.random.default_rng(0)
    voices, feelings = defaultdict(list), defaultdict(list)
    for index in rng.permutation(len(clips)).tolist():
        voices[clips[index].speaker].append(clips[index])
        feelings[clips[index].speaker, clips[index].emotion].append(clips[index])
    same = [
        joined(group[at : at + 4], 0.25) for group in feelings.values() for at in range(0, min(12, len(group) - 3), 4)
    ]
    whole = [(samples, [(parts[0][0], 0, len(samples))]) for samples, parts in same]
    return {"changing": [joined(group[:60], 0.5) for group in voices.values()], "one feeling": whole}


def uar(answers: list[tuple[Clip, Floats]], clips: list[Clip]) -> str:
    """UAR of each corpus."""
    cells = []
    for corpus in sorted({clip.corpus for clip, _ in answers}):
        classes = sorted({clip.emotion for clip in clips if clip.corpus == corpus})
        right = defaultdict(list)
        for clip, logits in answers:
            if clip.corpus == corpus:
                right[clip.emotion].append(classes[int(np.argmax(logits[classes]))] == clip.emotion)
        cells.append(f"{corpus} {100 * np.mean([np.mean(hits) for hits in right.values()]):5.1f}")
    return "  ".join(cells)


def row(model: LiteModel, plan: WindowPlan | None, kind: list[tuple[Floats, list[Part]]], clips: list[Clip]) -> str:
    """One line of the table; without a plan each part goes through by itself."""
    answers, seconds = [], 0.0
    model.plan = plan or PLAN
    engine, began = Engine(model), time.process_time()
    for samples, parts in kind:
        seconds += len(samples) / SAMPLE_RATE
        if plan is None:
            answers += [(c, engine.run([Waveform(samples[a:b])])[0].logits.mean(0)) for c, a, b in parts]
        else:
            logits = engine.run([Waveform(samples)])[0].logits
            answers += [(c, logits[a // 320 : b // 320].mean(0)) for c, a, b in parts]
    name = f"{plan.whole_s:g} / {plan.body_s:g} + {plan.context_s:g} s" if plan else "each alone"
    return f"{name:16s} {seconds / (time.process_time() - began):4.0f}x  {uar(answers, clips)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="as of training: path, corpus, speaker, emotion, split")
    parser.add_argument("--corpora", nargs="+", default=["emodb", "ravdess", "nemo", "tess"])
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="another file that training wrote")
    asked = parser.parse_args()
    clips = [c for c in manifest.read(asked.manifest) if c.split in SPLITS and c.corpus in asked.corpora]
    model = load_lite(0, asked.weights)
    for name, kind in recordings(clips).items():
        print(f"{name}: {len(kind)} recordings of {np.mean([len(s) for s, _ in kind]) / SAMPLE_RATE:.1f} s", flush=True)
        for plan in [None, *PLANS] if name == "changing" else PLANS:
            print(row(model, plan, kind, clips), flush=True)


if __name__ == "__main__":
    main()
