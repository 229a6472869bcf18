"""ONNX files answer as torch does, at any length, in every kind; the engine that runs them keeps the contract."""

from pathlib import Path

import numpy as np
import pytest

from emotion_app.engine import Engine
from emotion_app.errors import ModelError
from emotion_app.models import onnx as ours
from emotion_app.models.loader import load_model
from emotion_app.settings import Settings
from emotion_app.testing import HUB_TOKENS, write_checkpoint
from emotion_app.types import EXCLUDED_LOGIT, Waveform, n_frames
from tests.voices import voice

VARIANTS = [
    {},
    {"tokens": ("unuse_0", *HUB_TOKENS[::-1][:5])},
    {"layer_norm_first": True},
    {"normalize": False},
    {"audio__num_extra_tokens": 0},
    {"audio__conv_pos_width": 40, "audio__conv_pos_depth": 2},
    {"audio__learned_alibi_scale_per_layer": True},
    {"audio__use_alibi_encoder": False},
    {"norm_affine": False},
]


@pytest.fixture
def onnx_settings(own: Settings) -> Settings:
    return own.model_copy(update={"engine": "onnx", "device": "cpu"})


def same(a: np.ndarray, b: np.ndarray, limit: float) -> bool:
    return a.shape == b.shape and float(np.abs(a - b).max()) <= limit * max(1.0, float(np.abs(b).max()))


@pytest.mark.parametrize("change", VARIANTS, ids=str)
def test_every_config_and_length_is_that_of_torch(tmp_path: Path, own: Settings, onnx_settings: Settings, change: dict):
    directory = write_checkpoint(tmp_path / "x", **change)
    torch_model, onnx_model = load_model(str(directory), own), load_model(str(directory), onnx_settings)
    assert onnx_model.info.engine == "onnx" and onnx_model.info.labels == torch_model.info.labels
    for n in (400, 719, 720, 16_000, 50_001):
        wave = torch_model.prepare(voice(4)[:n])
        expected, found = torch_model.forward([wave])[0], onnx_model.forward([onnx_model.prepare(voice(4)[:n])])[0]
        kept = expected.logits[0] != EXCLUDED_LOGIT
        assert found.features.shape == (n_frames(n), 48)
        assert same(found.features, expected.features, 1e-4)
        assert same(found.logits[:, kept], expected.logits[:, kept], 1e-4)
        assert (found.logits[:, ~kept] <= EXCLUDED_LOGIT).all()


def test_the_file_normalises_a_raw_waveform_by_itself(tiny: Path, onnx_settings: Settings):
    model = load_model(str(tiny), onnx_settings)
    by_itself = model.run(voice(2) * 7 + np.float32(0.1), normalize=True)
    assert same(by_itself["logits"], model.forward([model.prepare(voice(2))])[0].logits, 2e-2)  # a gain changes nothing
    session = model._session
    assert {i.name for i in session.get_inputs()} == {"waveform"}
    assert {i.name for i in session.get_overridable_initializers()} == {"normalize"}


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["tiny", "lite"])
def test_export_writes_each_kind_and_says_how_far_it_is(
    tiny: Path, tmp_path: Path, own: Settings, name: str, kind: str
):
    done = ours.export_model(str(tiny) if name == "tiny" else "lite", own, tmp_path, kind)
    assert done.path == tmp_path / f"{name}.{kind}.onnx" and done.path.stat().st_size == round(done.size_mb * 1e6)
    assert done.difference <= {"fp32": 1e-5, "fp16": 0.01, "int8": 0.1}[kind]
    model = ours.open_onnx(done.path, own.model_copy(update={"device": "cpu"}))
    assert model.info.precision == kind
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".partial")] == []


def test_the_embedded_model_runs_too(own: Settings, onnx_settings: Settings):
    torch_model, onnx_model = load_model("lite", own), load_model("lite", onnx_settings)
    for seconds in (0.025, 0.05, 0.3, 2.0, 8.0):
        clip = voice(seconds, 3)
        expected = torch_model.forward([torch_model.prepare(clip)])[0]
        found = onnx_model.forward([onnx_model.prepare(clip)])[0]
        assert same(found.features, expected.features, 1e-3) and same(found.logits, expected.logits, 1e-3)
        assert (expected.reference_logits is None) == (found.reference_logits is None)
        if expected.reference_logits is not None:
            assert same(found.reference_logits, expected.reference_logits, 1e-3)
        assert same(onnx_model.run(clip, normalize=True)["logits"], expected.logits, 1e-3)
    assert onnx_model.baseline_rule == torch_model.baseline_rule or onnx_model.baseline_rule is not None


def test_long_clips_go_through_the_engines_windows(tiny: Path, own: Settings, onnx_settings: Settings):
    clip = Waveform(voice(65))
    answers = [Engine(load_model(str(tiny), s)).run([clip])[0] for s in (own, onnx_settings)]
    assert answers[0].n_frames == answers[1].n_frames and np.abs(answers[0].logits - answers[1].logits).max() < 0.5


def test_what_it_cannot_do_is_said(tiny: Path, tmp_path: Path, own: Settings, onnx_settings: Settings):
    with pytest.raises(ModelError) as caught:
        load_model(str(tiny), onnx_settings.model_copy(update={"device": "tensorrt"}))
    assert caught.value.code == "ENGINE_UNAVAILABLE" and "CPUExecutionProvider" in caught.value.text("en")
    with pytest.raises(ModelError) as caught:
        ours.export_model("emotion2vec_plus_large", own, tmp_path)
    assert caught.value.code == "MODEL_MISSING"
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError) as caught:
        ours.open_onnx(tmp_path / "x.onnx", onnx_settings)
    assert caught.value.code == "MODEL_BROKEN"
    noted = load_model(str(tiny), onnx_settings.model_copy(update={"precision": "bf16"}))
    assert noted.info.precision == "fp32" and "bf16" in noted.notes[0].text("en")


def test_a_file_that_differs_too_much_is_not_written(tiny: Path, tmp_path: Path, own: Settings, monkeypatch):
    monkeypatch.setitem(ours.ALLOWED, "fp32", 0.0)
    with pytest.raises(ModelError) as caught:
        ours.export_model(str(tiny), own, tmp_path / "x.onnx")
    assert caught.value.code == "MODEL_BROKEN" and list(tmp_path.glob("*.onnx")) == []
