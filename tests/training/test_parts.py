"""The parts of the training pipeline that have a known right answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app.errors import ConfigError, RequestError
from emotion_app.labels import INDEX
from emotion_app.models.lite import LiteModel, read_lite
from emotion_app.models.lite_network import WIDTH, LiteNet, Shape
from emotion_app.models.melspec import LEVEL, MelPower, level
from emotion_app.types import BaselineRule
from training import config, encoder, finetune, heads, manifest, pooled, scoring
from training.answers import Answers, with_baseline
from training.augment import MAX_MELS, Augment, Augmenter, floored
from training.features import log_mels
from training.manifest import Clip
from training.sampling import Sampler
from training.stream import Task, pad

ANGRY, HAPPY, NEUTRAL, UNKNOWN = (INDEX[key] for key in ("angry", "happy", "neutral", "unknown"))


def test_manifest_reads_names_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        "path,corpus,speaker,emotion,split\na.wav,x,s1,开心/happy,train\nb.wav,x,s1,,train\n", encoding="utf-8"
    )
    first, second = manifest.read(path)
    assert (first.emotion, first.speaker, first.path) == (HAPPY, "x/s1", tmp_path / "a.wav")
    assert second.emotion == manifest.UNLABELLED
    path.write_text("path,corpus,speaker,emotion,split\na.wav,x,s1,grumpy,train\n")
    with pytest.raises(RequestError, match="grumpy"):
        manifest.read(path)
    path.write_text("file,label\n")
    with pytest.raises(RequestError, match="corpus"):
        manifest.read(path)
    with pytest.raises(RequestError):
        manifest.read(tmp_path / "none.csv")


def test_config_refuses_a_name_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[finetune]\nstepz = 3\n")
    with pytest.raises(ConfigError, match="stepz"):
        config.read(path)
    assert config.read(Path(config.__file__).parent / "configs" / "lite.toml").model.blocks >= 2


def test_sampler_is_balanced_by_corpus_and_class() -> None:
    clips = [Clip(Path(f"{i}"), "big", f"big/{i % 7}", NEUTRAL if i % 10 else ANGRY, "train") for i in range(1000)]
    clips += [Clip(Path(f"s{i}"), "small", "small/0", HAPPY, "train") for i in range(5)]
    sampler = Sampler(clips, {"big": 0.5, "small": 0.5}, 0)
    drawn = [clips[sampler.draw()] for _ in range(4000)]
    assert abs(np.mean([c.corpus == "small" for c in drawn]) - 0.5) < 0.03
    assert abs(np.mean([c.emotion == ANGRY for c in drawn if c.corpus == "big"]) - 0.5) < 0.04


def test_augmented_frames_are_bounded_level_and_the_same_for_the_same_seed() -> None:
    mels = np.random.default_rng(0).normal(0, 1, (1200, 80)).astype(np.float32)
    one, two = (Augmenter(Augment(), lambda: mels, lambda: mels, 3) for _ in range(2))
    for _ in range(20):
        a, b = one(mels, HAPPY), two(mels, HAPPY)
        assert np.array_equal(a, b) and 10 < len(a) <= MAX_MELS and np.isfinite(a).all()
        assert abs(level(10.0**a) - LEVEL) < 1e-3
    assert floored(np.full((3, 80), -9.0, np.float32), -4.0).min() >= -4.0


def test_style_of_another_clip_moves_each_band_towards_it() -> None:
    """The same voice through another microphone: most of the difference in level and spread of the bands goes."""
    rng = np.random.default_rng(1)
    mels = rng.normal(0, 0.5, (200, 80)).astype(np.float32)
    other = 1.3 * mels[::-1] + np.linspace(-1, 1, 80, dtype=np.float32)
    nothing = Augment(trim=0, tempo=0, crop=0, short=0, warp=0, eq=0, band=0, noise=0, masks=0, style=1.0)
    augmenter = Augmenter(nothing, lambda: mels, lambda: other, 0)
    profile = [augmenter(mels, HAPPY).mean(axis=0) for _ in range(40)]
    slopes = [np.polyfit(np.linspace(-1, 1, 80), line, 1)[0] for line in profile]
    assert -0.1 < min(slopes) < 0.3 < 0.7 < max(slopes) < 1.1  # all the way between the one and the other
    plain = mels + np.float32(LEVEL - level(10.0**mels))
    np.testing.assert_allclose(augmenter(mels, UNKNOWN), plain, atol=1e-5)  # what is not speech has no voice


def test_training_pools_as_the_model_does() -> None:
    """Mean features of frames by their votes, padded or not, are what the app pools for the same clip."""
    weights = read_lite()
    weights.net.encoder.shape = replace(weights.net.encoder.shape, pause_db=35.0)
    model = LiteModel(replace(weights, full_frames=0))
    time = np.arange(48_000, dtype=np.float32) / 16_000
    clips = [
        (np.sin(700 * time) * (np.sin(2 * np.pi * rate * time) > 0)).astype(np.float32)[: int(seconds * 16_000)]
        for rate, seconds in ((1.0, 3.0), (2.3, 2.2))
    ]
    mels = [floored(log_mels(clip, MelPower()), weights.net.encoder.shape.floor) for clip in clips]
    pooled_there = pooled.of_batch(weights.net, pad([(m, i) for i, m in enumerate(mels)]), fast=False)
    for row, clip in zip(pooled_there.numpy(), clips, strict=True):
        here = model.forward([model.prepare(clip)])[0].features.mean(0)
        assert np.abs(row - here).max() < 2e-3 * np.abs(here).max()


def test_each_tap_is_made_to_answer_by_itself() -> None:
    """A head that leans on one tap alone costs more by ``tap_weight``; one whose taps agree costs the same."""
    generator = torch.Generator().manual_seed(0)
    emotion, allowed = torch.tensor([HAPPY, NEUTRAL]), torch.ones(2, 9, dtype=torch.bool)
    half = torch.randn(2, WIDTH, generator=generator)
    features = torch.cat([half, half], dim=1)
    weight = torch.randn(9, WIDTH, generator=generator) / WIDTH**0.5
    both, one = torch.nn.Linear(2 * WIDTH, 9), torch.nn.Linear(2 * WIDTH, 9)
    both.weight.data, one.weight.data = torch.cat([weight, weight], 1), torch.cat([2 * weight, 0 * weight], 1)
    one.bias.data = both.bias.data
    costs = {
        (name, share): finetune.answers_loss(
            head, features, finetune.Finetune(tap_weight=share), emotion, allowed, 0.1
        ).item()
        for name, head in (("both", both), ("one", one))
        for share in (0.0, 0.5)
    }
    assert costs["both", 0.0] == pytest.approx(costs["one", 0.0], rel=1e-5)
    assert costs["both", 0.5] == pytest.approx(costs["both", 0.0], rel=1e-5)
    assert costs["one", 0.5] > costs["one", 0.0] + 0.01


def test_loss_knows_the_classes_of_the_corpus() -> None:
    allowed = torch.zeros(1, 9, dtype=torch.bool)
    allowed[0, [HAPPY, NEUTRAL, UNKNOWN]] = True
    logits = torch.zeros(1, 9)
    tempting = logits.clone()
    tempting[0, ANGRY] = 2.0  # a class that this corpus does not have costs only in the first half
    emotion = torch.tensor([HAPPY])
    full = torch.ones_like(allowed)
    gain = heads.loss(tempting, emotion, full) - heads.loss(logits, emotion, full)
    half = heads.loss(tempting, emotion, allowed) - heads.loss(logits, emotion, allowed)
    assert half == pytest.approx(float(gain) / 2, rel=1e-5)


def test_reference_head_undoes_a_shift_of_each_speaker() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = 2 * torch.randn(3, 8, generator=generator)
    clips, features = [], []
    for speaker in range(12):
        shift = 5 * torch.randn(8, generator=generator)
        for i in range(30):
            emotion = (ANGRY, HAPPY, NEUTRAL)[i % 3]
            clips.append(Clip(Path("x"), "c", f"c/{speaker}", emotion, "train"))
            features.append(directions[i % 3] + shift + torch.randn(8, generator=generator))
    task, x = Task.of(clips), torch.stack(features)
    train = (task.speaker < 8).nonzero().flatten()
    centre = heads.Centre.of(x[train], heads.take(task, train))
    means = heads.references(x, task, train, generator)
    head = heads.solve(x[train] - centre.shift(*means), heads.take(task, train), 1e-3)
    test = (task.speaker >= 8).nonzero().flatten()
    shift = centre.shift(*heads.references(x, task, test, generator, 10, 0.0))
    found = scoring.uar(task.emotion[test].numpy(), head(x[test] - shift).argmax(1).numpy())
    plain = heads.solve(x[train], heads.take(task, train), 1e-3)
    alone = scoring.uar(task.emotion[test].numpy(), plain(x[test]).argmax(1).numpy())
    assert found > 0.75 and found > alone + 0.1


def test_head_of_several_taps_is_the_mean_of_one_for_each() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2 * WIDTH, generator=generator)
    task = Task.of([Clip(Path("x"), "c", f"c/{i % 4}", (ANGRY, HAPPY, NEUTRAL)[i % 3], "train") for i in range(60)])
    head = heads.solve_taps(x, task, 0.1)
    apart = [heads.solve(tap, task, 0.1)(tap) for tap in x.split(WIDTH, dim=1)]
    torch.testing.assert_close(head(x), (apart[0] + apart[1]) / 2, atol=1e-4, rtol=1e-4)
    net = LiteNet(Shape(2, (1, 2)))
    before = net.head(x).detach()
    heads.place_plain(net, head, 0.25)
    torch.testing.assert_close(net.head(x).detach(), 0.75 * before + 0.25 * head(x), atol=1e-4, rtol=1e-4)


def test_figures() -> None:
    truth = np.array([NEUTRAL, NEUTRAL, NEUTRAL, ANGRY])
    answer = np.array([NEUTRAL, NEUTRAL, ANGRY, ANGRY])
    assert scoring.uar(truth, answer) == pytest.approx((2 / 3 + 1) / 2)
    assert scoring.accuracy(truth, answer) == 0.75
    assert scoring.macro_f1(truth, answer) == pytest.approx((0.8 + 2 / 3) / 2)
    assert scoring.neutral_heavy(truth, answer) == pytest.approx(0.85 * 2 / 3 + 0.15)
    figure = scoring.bootstrap(scoring.accuracy, truth, answer, ["a", "a", "b", "b"])
    assert figure.low <= figure.value <= figure.high
    scores = np.zeros((4, 9))
    scores[:, NEUTRAL], scores[:, ANGRY] = 0.75, 0.25
    assert scoring.calibration_error(scores, truth) == pytest.approx(0.0)
    assert list(scoring.restricted(scores, [ANGRY, HAPPY])) == [ANGRY] * 4


def test_baseline_protocol_uses_other_clips_of_the_same_speaker() -> None:
    zero = np.zeros(9, np.float32)
    rule = BaselineRule(zero, zero, zero, n0=0.0)
    clips = [Clip(Path("x"), "c", f"c/{i % 2}", (ANGRY, NEUTRAL)[i // 2 % 2], "test") for i in range(8)]
    logits = np.array([[5.0 * (c.speaker == "c/1") + (j == c.emotion) for j in range(9)] for c in clips], np.float32)
    scores = with_baseline(Answers(logits, logits), clips, rule, 10, 0.0, 0)
    assert (scores[:, [ANGRY, NEUTRAL]].argmax(1) == np.array([c.emotion == NEUTRAL for c in clips])).all()


def test_dequantisation_undoes_scale_and_zero_point_by_row() -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("DequantizeLinear", ["a", "b", "c"], ["d"], axis=0)
    values, scale, zero = np.array([[1, 2], [3, 4]], np.int8), np.array([0.5, 2], np.float32), np.array([0, 1], np.int8)
    assert np.array_equal(encoder._dequantise(values, scale, zero, node=node), [[0.5, 1], [4, 6]])
    assert encoder._our_name("layers.2.self_attn.q_proj.weight") == "blocks.2.q.weight"
    assert encoder._our_name("layers.0.final_layer_norm.bias") == "blocks.0.norm2.bias"
