"""The network on its own: frame counts, batches of any mix, precision. Equality with FunASR is in tests/parity."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app.models.loader import load_model
from emotion_app.settings import Settings
from emotion_app.testing import write_checkpoint
from emotion_app.types import EXCLUDED_LOGIT, n_frames
from tests.voices import voice


def scores(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64).mean(0) - logits.mean(0).max())
    return e / e.sum()


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).max() / max(1e-9, np.abs(b).max()))


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory):
    return load_model(str(tiny), Settings(models_dir=tmp_path_factory.mktemp("models"), precision="fp32", threads=1))


@pytest.mark.parametrize("n", [400, 401, 719, 720, 721, 16_000, 16_321, 64_000 + 399, 64_000 + 400])
def test_frames_are_those_of_the_conv_arithmetic(model, n: int):
    answer = model.forward([model.prepare(voice(5)[:n])])[0]
    assert answer.features.shape == (n_frames(n), 48) and answer.logits.shape == (n_frames(n), 9)
    assert answer.features.dtype == answer.logits.dtype == np.float32


def test_chunks_of_the_front_end_change_nothing(model, tiny: Path):
    from emotion_app.models import network

    long = model.prepare(voice(11))
    one = model.forward([long])[0]
    front = model._network._front
    front._chunk, before = 7, front._chunk
    try:
        other = model.forward([long])[0]
    finally:
        front._chunk = before
    assert before == network.CHUNK_FRAMES
    assert largest(other.features, one.features) < 1e-5


def test_a_batch_is_the_clips_one_by_one_in_any_order(model):
    waves = [model.prepare(voice(s, i)) for i, s in enumerate((2.3, 0.025, 1.0, 1.004, 4.1, 1.0, 0.5, 2.3, 1.019))]
    alone = [model.forward([w])[0] for w in waves]
    for order in (range(9), range(8, -1, -1), (4, 1, 7, 0, 3, 2, 8, 6, 5)):
        for place, answer in zip(order, model.forward([waves[i] for i in order]), strict=True):
            assert largest(answer.features, alone[place].features) < 1e-5
            assert np.abs(scores(answer.logits) - scores(alone[place].logits)).max() < 1e-6


@pytest.mark.parametrize("threads", [2, 3])
def test_clips_side_by_side_are_bit_for_bit_the_clips_alone(model, threads: int):
    waves = [model.prepare(voice(s, i)) for i, s in enumerate((2.3, 0.025, 1.0, 1.004, 4.1, 1.0, 0.5))]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [model.forward([w])[0] for w in waves]
        for some in (waves, waves[:2], waves[2:5], waves[::-1]):
            for wave, answer in zip(some, model.forward(some), strict=True):
                expected = next(a for w, a in zip(waves, alone, strict=True) if w is wave)
                assert np.array_equal(answer.logits, expected.logits)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_frame_logits_average_to_the_head_of_the_mean_feature(model):
    answer = model.forward([model.prepare(voice(3))])[0]
    of_mean = model._head(torch.from_numpy(answer.features.mean(0, keepdims=True))).numpy()[0]
    assert np.abs(answer.logits.mean(0) - of_mean).max() < 2e-5


def test_silence_and_full_scale_give_finite_numbers(model):
    for wave in (np.zeros(16_000, np.float32), np.ones(16_000, np.float32), np.sign(voice(1))):
        answer = model.forward([model.prepare(wave.astype(np.float32))])[0]
        assert np.isfinite(answer.features).all() and np.isfinite(answer.logits).all()


def test_prepare_is_a_layer_norm_of_the_whole_clip_or_nothing(model, tmp_path: Path, own: Settings):
    wave = voice(2) + np.float32(0.3)
    ready = model.prepare(wave)
    assert abs(ready.mean()) < 1e-5 and abs(ready.std() - 1) < 1e-2
    raw = load_model(str(write_checkpoint(tmp_path / "raw", normalize=False)), own)
    assert np.array_equal(raw.prepare(wave), wave)


def test_a_class_that_is_left_out_has_score_zero(tmp_path: Path, own: Settings):
    tokens = ("sad", "unuse_0", "happy", "angry", "<unk>")
    model = load_model(str(write_checkpoint(tmp_path / "few", tokens=tokens)), own)
    logits = model.forward([model.prepare(voice(1))])[0].logits
    kept = [0, 3, 6, 8]
    assert model.info.labels == ("angry", "happy", "sad", "unknown")
    assert (np.delete(logits, kept, axis=1) == EXCLUDED_LOGIT).all()
    assert scores(logits)[[1, 2, 4, 5, 7]].sum() == 0


def test_bf16_is_close_and_keeps_batches_apart(tiny: Path, own: Settings):
    full = load_model(str(tiny), own)
    half = load_model(str(tiny), own.model_copy(update={"precision": "bf16"}))
    assert half.info.precision == "bf16"
    waves = [full.prepare(voice(s, i)) for i, s in enumerate((1.0, 2.0, 1.0, 3.0))]
    for one, many, exact in zip(
        [half.forward([w])[0] for w in waves], half.forward(waves), full.forward(waves), strict=True
    ):
        assert np.abs(scores(one.logits) - scores(exact.logits)).max() < 0.03
        assert np.abs(scores(many.logits) - scores(one.logits)).max() < 0.01


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_first": True},
        {"audio__learned_alibi_scale_per_layer": True},
        {"audio__learned_alibi_scale_per_head": False},
        {"audio__num_extra_tokens": 0},
        {"audio__use_alibi_encoder": False},
        {"audio__conv_pos_width": 40},
        {"norm_affine": False},
    ],
)
def test_variants_of_the_config_run_in_every_precision(tmp_path: Path, own: Settings, change: dict):
    directory = write_checkpoint(tmp_path / "variant", **change)
    answers = []
    for precision in ("fp32", "bf16"):
        model = load_model(str(directory), own.model_copy(update={"precision": precision}))
        answers.append(model.forward([model.prepare(voice(1.5))])[0].logits)
    assert np.abs(scores(answers[0]) - scores(answers[1])).max() < 0.05


def test_company_is_wanted_for_short_clips_only(model):
    assert model.batch_limit(16_000) >= 4
    assert model.batch_limit(10 * 16_000) == 1
    assert model.batch_limit(400) >= 1
