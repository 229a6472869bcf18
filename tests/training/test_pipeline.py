"""The whole road on made-up clips: manifest in, weights and report out, and every step can be taken again."""

from __future__ import annotations

import csv
import json
import shutil
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app.errors import ConfigError
from emotion_app.models.lite import WEIGHTS, load_lite
from emotion_app.types import Floats
from training import config, features
from training.__main__ import main
from training.pipeline import Run, recall

TOML = f"""
seeds = [0, 1]
folds = ["things"]
batch = 4
encoder = "{WEIGHTS}"
[data]
renditions = 1
[augment]
style = 0.5
[model]
blocks = 1
taps = [1]
width = 512
hidden = 704
[heads]
batches = 4
narrow_batches = 2
batch = 8
reference_rows = 30
again = 0.5
[finetune]
steps = 4
warmup = 1
tap_weight = 0.5
[evaluate]
splits = ["test"]
degrade = ["voices"]
noise = "things"
calibrate = ["voices", "test"]
[export]
version = "test"
licence = "none"
full_frames = 100
"""
PITCH = {"angry": 260, "neutral": 120, "sad": 90}


def sound(emotion: str, rng: np.random.Generator) -> Floats:
    time = np.arange(int(rng.uniform(1.0, 1.6) * 16_000)) / 16_000
    if emotion == "unknown":
        return (0.1 * rng.standard_normal(len(time))).astype(np.float32)
    phase = np.cumsum(PITCH[emotion] * (1 + 0.2 * np.sin(2 * np.pi * 3 * time))) / 16_000
    return (0.05 * sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 9))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 clips of two made-up corpora, voices and noises; two of them without a label."""
    root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    rows = []
    for number in range(26):
        corpus, emotion = ("things", "unknown") if number % 6 == 5 else ("voices", list(PITCH)[number % 3])
        name, split = f"{number}.wav", "test" if number % 13 >= 10 else "train"
        with wave.open(str(root / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes((sound(emotion, rng) * 32767).astype(np.int16).tobytes())
        rows.append([name, corpus, f"s{number % 2}", emotion if number not in (20, 21) else "", split])
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "corpus", "speaker", "emotion", "split"], *rows])
    (root / "c.toml").write_text(TOML)
    return root


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """A finished run."""
    given = [
        "--config",
        folder / "c.toml",
        "--manifest",
        folder / "manifest.csv",
        "--cache",
        folder / "cache",
        "--run",
        folder / "run",
    ]
    assert main(["all", *map(str, given)]) == 0
    return folder / "run"


def test_weights_load_and_answer(done: Path) -> None:
    model = load_lite(0, done / "lite.safetensors")
    arrays = model.forward([model.prepare(sound("sad", np.random.default_rng(9)))])[0]
    assert arrays.logits.shape[1] == 9 and np.isfinite(arrays.logits).all()
    assert model.info.dim == 512 and model.info.revision == "test" and model.baseline_rule is not None


def test_report_has_every_table(done: Path) -> None:
    report = json.loads((done / "report.json").read_text())
    voices = next(c for c in report["corpora"] if c["corpus"] == "voices")
    assert set(voices["degraded"]) >= {"8 kHz band", "MP3 64k", "Opus 24k", "recorded noise 10 dB", "1 s"}
    assert voices["baseline"] and 0 <= voices["uar"]["low"] <= voices["uar"]["high"] <= 1
    assert "| voices test |" in (done / "report.md").read_text()


def test_features_go_on_where_they_stopped(folder: Path, done: Path) -> None:
    run = Run(config.read(folder / "c.toml"), folder / "manifest.csv", folder / "cache", done)
    before = features.Cache(folder / "cache", len(run.clips), 1)[3].copy()
    (folder / "cache" / "1-0000.ends.npy").unlink()
    run.make_features()
    assert np.array_equal(features.Cache(folder / "cache", len(run.clips), 1)[3], before)
    other = replace(run, config=replace(run.config, data=replace(run.config.data, train=("test",))))
    with pytest.raises(ConfigError, match="other clips"):
        other.make_features()


def test_seeds_are_averaged_and_their_spread_is_told(folder: Path, done: Path, tmp_path: Path) -> None:
    ends = [torch.load(done / f"last-{seed}.pt", weights_only=True)["average"] for seed in (0, 1)]
    key = "head.weight"  # the encoder of this tiny run is frozen
    assert not torch.equal(ends[0][key], ends[1][key])
    mean = (ends[0][key] + ends[1][key]) / 2
    run = Run(config.read(folder / "c.toml"), folder / "manifest.csv", folder / "cache", done)
    fine_tuned = replace(run.config, heads=replace(run.config.heads, again=0.0))
    alone = replace(run, config=fine_tuned, folder=shutil.copytree(done, tmp_path / "alone")).train()
    assert torch.allclose(alone.net.state_dict()[key], mean)
    assert not torch.allclose(recall(done / "trained.pt").net.state_dict()[key], mean)  # half of it solved again
    assert "seed 1" in run.spread() and (done / "seed-1" / "lite.safetensors").exists()


def test_learning_from_a_teacher_uses_clips_without_a_label(folder: Path, tmp_path: Path) -> None:
    from emotion_app.testing import write_checkpoint

    teacher = write_checkpoint(tmp_path / "tiny")
    run = Run(
        config.read(folder / "c.toml"), folder / "manifest.csv", tmp_path / "cache", tmp_path / "run", 1, str(teacher)
    )
    run.make_features()
    assert len(run.clips) == 2 + len(replace(run, teacher=None).clips) and all(clip.emotion >= 0 for clip in run.clips)
    trained = run.train()
    assert all(torch.isfinite(p).all() for p in trained.net.parameters())


def test_a_finished_run_stays_as_it_is_and_a_longer_one_goes_on(folder: Path, done: Path) -> None:
    run = Run(config.read(folder / "c.toml"), folder / "manifest.csv", folder / "cache", done)
    before = torch.load(done / "last-0.pt", weights_only=True)["student"]["encoder.blocks.0.fc1.weight"]
    run.train()
    assert torch.equal(
        before, torch.load(done / "last-0.pt", weights_only=True)["student"]["encoder.blocks.0.fc1.weight"]
    )
    longer = replace(run, config=replace(run.config, finetune=replace(run.config.finetune, steps=6, frozen_blocks=-1)))
    for seed in (0, 1):
        (done / f"last-{seed}.pt").unlink()
    longer.train()
    assert torch.load(done / "last-0.pt", weights_only=True)["step"] == 6


def test_leaving_a_corpus_out(folder: Path) -> None:
    run = Run(config.read(folder / "c.toml"), folder / "manifest.csv", folder / "cache", folder / "left")
    text = replace(run, config=replace(run.config, finetune=replace(run.config.finetune, steps=0))).folds()
    assert "| things, 2 clips |" in text and (folder / "left" / "folds.md").read_text() == text
    assert recall(folder / "left" / "without-things" / "trained.pt").net.encoder.shape.blocks == 1
