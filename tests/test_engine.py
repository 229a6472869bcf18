"""Windows, batches, memory fallback and cancellation of the engine."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_app.engine import Engine, windows
from emotion_app.errors import AudioError, BusyError, ModelError
from emotion_app.models import WindowPlan
from emotion_app.types import Waveform
from tests.local_model import LocalModel


def noise(seconds: float, seed: int = 0) -> Waveform:
    return Waveform(np.random.default_rng(seed).normal(size=int(seconds * 16_000)).astype(np.float32) / 10)


@given(total=st.integers(1, 20_000), whole=st.floats(0.5, 60), body=st.floats(0.5, 30), context=st.floats(0, 10))
def test_windows_tile_the_clip(total: int, whole: float, body: float, context: float) -> None:
    cuts, margin = windows(total, WindowPlan(whole, body, context)), round(context * 50)
    assert cuts[0][2] == 0 and cuts[-1][3] == total
    assert all(a[3] == b[2] for a, b in itertools.pairwise(cuts))
    assert all(0 <= first <= start < stop <= last <= total for first, last, start, stop in cuts)
    assert len({last - first for first, last, *_ in cuts}) == 1  # one set of kernels and buffers for all
    assert all(first == 0 or start - first >= margin for first, _, start, _ in cuts)
    assert all(last == total or last - stop >= margin for _, last, _, stop in cuts)
    if len(cuts) > 1:
        assert max(last - first for first, last, *_ in cuts) <= 50 * (body + 2 * context) + 2


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.floats(0.03, 4), min_size=1, max_size=12), whole=st.sampled_from([0.5, 2.0, 60.0]))
def test_windows_and_batches_change_nothing(lengths: list[float], whole: float) -> None:
    waves = [noise(s, i) for i, s in enumerate(lengths)]
    many = Engine(LocalModel(WindowPlan(whole, 0.5, 0.1))).run(waves, features=True)
    for wave, output in zip(waves, many, strict=True):
        alone = Engine(LocalModel(limit=1)).run([wave], features=True)[0]
        np.testing.assert_allclose(output.logits, alone.logits, atol=1e-6)
        np.testing.assert_allclose(output.mean_feature, alone.mean_feature, atol=1e-6)
        np.testing.assert_allclose(output.features, alone.features, atol=1e-6)
        np.testing.assert_allclose(output.reference_logits, alone.reference_logits, atol=1e-6)
        np.testing.assert_allclose(output.features.mean(0), output.mean_feature, atol=1e-6)


def test_batches_hold_like_lengths() -> None:
    model = LocalModel(limit=3)
    Engine(model).run([noise(s) for s in (1, 3, 1, 1, 3, 1, 0.5)])
    assert [[round(n / 16_000, 1) for n in batch] for batch in model.batches] == [[3, 3], [1, 1, 1], [1], [0.5]]


def test_long_clip_says_so_and_drops_features() -> None:
    output = Engine(LocalModel(WindowPlan(1, 1, 0.2))).run([noise(3)])[0]
    assert [n.code for n in output.notes] == ["windowed"] and output.features is None


def test_too_short() -> None:
    with pytest.raises(AudioError, match="Too short"):
        Engine(LocalModel()).run([noise(0.02)])


def test_progress_and_cancel() -> None:
    seen: list[float] = []
    cancel = threading.Event()

    def progress(fraction: float) -> None:
        seen.append(fraction)
        if len(seen) == 2:
            cancel.set()

    with pytest.raises(BusyError) as caught:
        Engine(LocalModel(WindowPlan(1, 1, 0), limit=1)).run([noise(10)], progress=progress, cancel=cancel)
    assert caught.value.code == "CANCELLED" and seen == pytest.approx([0.1, 0.2], abs=0.01)


@pytest.mark.parametrize("at", range(1, 9))
def test_memory_ends_at_any_call(at: int) -> None:
    """The n-th allocation fails, whatever the batch: halve, halve, CPU; no clip is lost and the result says so."""
    calls = 0

    def fail(size: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    waves = [noise(1, i) for i in range(8)] + [noise(3, 9)]
    engine = Engine(LocalModel(before=fail, device="cuda:0", limit=4), fallback=LocalModel)
    outputs = engine.run(waves)
    plain = Engine(LocalModel(limit=1)).run(waves)
    for got, want in zip(outputs, plain, strict=True):
        np.testing.assert_allclose(got.logits, want.logits, atol=1e-6)
    if calls >= at:
        assert engine.oom_steps == 1 and any(n.code == "oom" for o in outputs for n in o.notes)


def test_small_memory_goes_down_to_the_cpu_and_back(monkeypatch) -> None:
    def fail(size: int) -> None:
        raise RuntimeError("CUDA out of memory")

    engine = Engine(LocalModel(before=fail, device="cuda:0"), fallback=LocalModel)
    output = engine.run([noise(1, i) for i in range(4)])[0]
    assert [n.facts["step"] for n in output.notes] == ["batch of 4 halved", "batch of 2 halved", "went on with the CPU"]
    assert engine.info.device == "cpu"
    now = engine._cpu_until + 1
    monkeypatch.setattr("emotion_app.engine.time.monotonic", lambda: now)
    assert engine.info.device == "cuda:0"


def test_no_memory_at_all() -> None:
    def fail(size: int) -> None:
        raise MemoryError

    with pytest.raises(ModelError) as caught:
        Engine(LocalModel(before=fail)).run([noise(1)])
    assert caught.value.code == "OUT_OF_MEMORY"


def test_numbers_that_are_none() -> None:
    model = LocalModel()
    model._head[:] = np.nan
    with pytest.raises(ModelError, match="not numbers"):
        Engine(model).run([noise(1)])
