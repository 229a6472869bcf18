"""The embedded model keeps the contract of every FrameModel, and its own promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_app import audio
from emotion_app.errors import ModelError
from emotion_app.labels import INDEX
from emotion_app.models.lite import PLAN, SURE, UNKNOWN, WEIGHTS, LiteModel, load_lite, trust
from emotion_app.models.lite_network import EASE_DB, POSITIONS, votes
from emotion_app.models.melspec import MelPower, mel_filters
from emotion_app.settings import Limits
from emotion_app.types import FRAME_RATE, MIN_SAMPLES, SAMPLE_RATE, Floats, n_frames

CLIPS = Path(__file__).parents[2] / "examples" / "clips"


@pytest.fixture(scope="module")
def model() -> LiteModel:
    return load_lite(1)


def voice(seconds: float, seed: int = 0) -> Floats:
    """A buzz with a moving pitch and pauses: enough like a voice for the contract."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    phase = np.cumsum(120 + 60 * np.sin(2 * np.pi * 1.3 * time)) / 16_000
    sound = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 2.1 * time) > -0.5)
    return (0.05 * sound + 0.001 * rng.standard_normal(len(time))).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


@pytest.mark.parametrize("n", [400, 401, 559, 560, 719, 720, 879, 1000, 16_000, 16_017, 47_999, 128_000])
def test_frames_features_and_logits_fit_the_contract(model: LiteModel, n: int) -> None:
    arrays = model.forward([model.prepare(voice(9)[:n])])[0]
    assert arrays.logits.shape == (n_frames(n), 9) and arrays.features.shape == (n_frames(n), model.info.dim)
    assert arrays.reference_logits is not None and arrays.reference_logits.shape == arrays.logits.shape
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays)


def test_pooled_logits_are_the_logits_of_the_pooled_feature(model: LiteModel) -> None:
    arrays = model.forward([model.prepare(voice(3.3))])[0]
    weight, bias = model.head
    pooled = arrays.features.mean(0, dtype=np.float64)
    assert np.abs(softmax(arrays.logits.mean(0)) - softmax(weight @ pooled + bias)).max() < 1e-6


def test_a_batch_gives_what_each_clip_gives_alone(model: LiteModel) -> None:
    waves = [model.prepare(voice(s, seed)) for seed, s in enumerate((0.4, 1.0, 1.015, 2.5, 2.5, 4.1, 7.9))]
    for together, wave in zip(model.forward(waves), waves, strict=True):
        alone = model.forward([wave])[0]
        assert np.abs(softmax(together.logits.mean(0)) - softmax(alone.logits.mean(0))).max() < 1e-6
        assert np.allclose(together.features, alone.features, rtol=1e-4, atol=1e-4)
        assert np.allclose(together.logits, alone.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gain", [1e-3, 0.1, 7.0])
def test_the_recording_gain_does_not_matter(model: LiteModel, gain: float) -> None:
    clip = voice(2.5)
    one, other = (model.forward([model.prepare(x)])[0].logits.mean(0) for x in (clip, clip * np.float32(gain)))
    assert np.abs(softmax(one) - softmax(other)).max() < 1e-5


def test_the_same_clip_gives_the_same_bits(model: LiteModel) -> None:
    clip = model.prepare(voice(2.0))
    assert np.array_equal(model.forward([clip])[0].logits, model.forward([clip])[0].logits)


@pytest.mark.parametrize(
    "clip", [np.zeros(16_000, np.float32), np.full(16_000, 1e-7, np.float32), np.zeros(400, np.float32)]
)
def test_silence_is_finite(model: LiteModel, clip: Floats) -> None:
    assert np.isfinite(model.forward([model.prepare(clip)])[0].logits).all()


def test_prepare_takes_less_than_a_frame(model: LiteModel) -> None:
    assert len(model.prepare(np.zeros(MIN_SAMPLES - 1, np.float32))) == MIN_SAMPLES - 1


def test_windows_fit_the_positions() -> None:
    assert PLAN.body_s + 2 * PLAN.context_s <= PLAN.whole_s <= POSITIONS / FRAME_RATE


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("seed", range(4))
def test_a_snippet_gets_no_confident_emotion(model: LiteModel, seconds: float, seed: int) -> None:
    scores = softmax(model.forward([model.prepare(voice(seconds, seed))])[0].logits.mean(0))
    assert np.delete(scores, INDEX["unknown"]).max() < 0.5


def with_pauses(wave: Floats, seconds: float) -> Floats:
    """Room tone 60 dB below the voice before, in the middle and after, ``seconds`` each."""
    room = np.random.default_rng(5).standard_normal((3, int(seconds * SAMPLE_RATE))).astype(np.float32)
    room *= 1e-3 * np.sqrt(np.mean(wave**2))
    half = len(wave) // 2
    return np.concatenate([room[0], wave[:half], room[1], wave[half:], room[2]])


def test_pauses_have_no_say(model: LiteModel) -> None:
    """Frames of a pause are where all nine logits are zero, but for a touch of unknown: their label by themselves."""
    wave = with_pauses(voice(3.0), 0.6)
    arrays = model.forward([model.prepare(wave)])[0]
    pause = slice(8, 22)  # 0.16 to 0.44 s
    assert np.abs(arrays.logits[pause]).max() < 0.08 < np.abs(arrays.logits[60:100]).max()
    assert (arrays.logits[pause].argmax(1) == UNKNOWN).all()
    rule = model.baseline_rule
    assert rule is not None and arrays.reference_logits is not None
    assert np.abs(arrays.reference_logits[pause] - rule.g).max() < 0.02


def test_votes_of_a_padded_clip_are_those_of_the_clip_alone() -> None:
    energy = torch.rand(1, 61, generator=torch.Generator().manual_seed(1)) ** 8
    padded = torch.cat([energy, torch.full((1, 20), 9.0)], dim=1)
    alone, within = votes(energy, 35.0), votes(padded, 35.0, torch.tensor([61]))
    assert torch.equal(within[:, :31], alone) and not within[:, 31:].any()
    assert torch.equal(votes(torch.zeros(1, 9), 35.0).unique(), torch.sigmoid(torch.tensor([35 / EASE_DB])))


def test_noise_and_tones_are_unknown(model: LiteModel) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(48_000) / 16_000
    for sound in (rng.standard_normal(48_000) * 0.1, np.sin(2 * np.pi * 440 * time) * 0.3):
        logits = model.forward([model.prepare(sound.astype(np.float32))])[0].logits.mean(0)
        assert logits.argmax() == INDEX["unknown"]


def test_the_baseline_rule_with_a_typical_reference_moves_little_and_sums_to_one(model: LiteModel) -> None:
    rule = model.baseline_rule
    assert rule is not None
    arrays = model.forward([model.prepare(voice(3.0))])[0]
    plain, reference = arrays.logits.mean(0), arrays.reference_logits.mean(0)
    none = rule.scores(plain, reference, np.zeros(9, np.float32), 0, 0.85)
    typical = rule.scores(plain, reference, rule.g, 10, 0.0)
    assert np.allclose(none, typical, atol=1e-6) and abs(none.sum() - 1) < 1e-9
    assert (none.argmax() == INDEX["unknown"]) == (plain.argmax() == INDEX["unknown"])


def test_what_the_file_says(model: LiteModel) -> None:
    assert model.info.embedded and model.info.licence and model.info.revision and len(model.info.sha256 or "") == 64
    assert WEIGHTS.stat().st_size <= 10e6


def test_a_missing_or_broken_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not on this machine"):
        load_lite(1, tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(WEIGHTS.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="damaged"):
        load_lite(1, tmp_path / "cut.safetensors")


def test_filters_are_slaneys() -> None:
    librosa = pytest.importorskip("librosa")
    assert np.abs(mel_filters().numpy() - librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80)).max() < 1e-6


def test_long_sound_in_blocks_equals_one_piece() -> None:
    import torch

    power, sound = MelPower(), torch.from_numpy(voice(70))
    assert torch.equal(power(sound)[6000:6100], power(sound[6000 * 160 : 6099 * 160 + 400]))


def test_import_loads_no_training_and_no_audio_library() -> None:
    bad = "{'training', 'librosa', 'torchaudio'} & set(sys.modules)"
    code = f"import sys, emotion_app.models.lite; sys.exit(str({bad}) if {bad} else 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_interim_windows_are_close_to_final_answers_and_say_their_precision(model: LiteModel) -> None:
    quick = load_lite(0, precision="bf16")
    assert (quick.info.precision, model.info.precision, quick.interim) == ("bf16", "fp32", None)
    assert load_lite(0, precision="fp32").interim is None
    for path in sorted(CLIPS.glob("*.flac")):
        sound = audio.load(path, limits=Limits()).samples[: 3 * SAMPLE_RATE]
        mine, theirs = (m.forward([m.prepare(sound)])[0].logits.mean(0) for m in (model, quick))
        assert np.abs(softmax(mine) - softmax(theirs)).max() < 0.03


def test_threads_are_given_back(model: LiteModel) -> None:
    before = torch.get_num_threads()
    model.forward([np.zeros(SAMPLE_RATE, np.float32)])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("frames", [10, 30, 60, 74])
def test_no_emotion_is_confident_in_a_snippet_and_its_label_stays(frames: int) -> None:
    dice = np.random.default_rng(frames)
    for logits in dice.normal(0, 4, (200, 9)).astype(np.float32):
        drawn = softmax(trust(logits, frames, 100) * logits)
        assert drawn.argmax() == logits.argmax()
        assert drawn.max() < SURE or drawn.argmax() == UNKNOWN
