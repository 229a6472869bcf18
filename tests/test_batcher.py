"""The queue in front of the model: bounds, deadlines, cancellation, poison, worker death, fairness."""

import threading
import time

import numpy as np
import pytest

from emotion_app import batcher as batcher_module
from emotion_app.batcher import Batcher
from emotion_app.engine import Engine
from emotion_app.errors import BusyError, EmotionError, ModelError
from emotion_app.models import WindowPlan
from emotion_app.models.scale import Scale
from emotion_app.settings import Limits
from emotion_app.types import Waveform
from tests.local_model import LocalModel

POISON = np.float32(0.777)


def clip(seconds: float = 1.0, seed: int = 0) -> Waveform:
    return Waveform(np.random.default_rng(seed).normal(size=int(seconds * 16_000)).astype(np.float32) / 10)


@pytest.fixture
def batcher():
    made = Batcher(Limits(batch_wait_ms=20))
    yield made
    made.close()


class Gate:
    """Holds the model thread in its first step until opened."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, size: int) -> None:
        self.entered.set()
        assert self.open.wait(20)


def held(batcher: Batcher):
    gate = Gate()
    future = batcher.submit(Engine(LocalModel(before=gate)), clip(), deadline_s=30)
    assert gate.entered.wait(20)
    return gate, future


def test_answers_equal_single_clips(batcher: Batcher) -> None:
    engine = Engine(LocalModel())
    waves = [clip(0.1 + 0.37 * i, i) for i in range(12)]
    futures = [batcher.submit(engine, w, deadline_s=30, features=True) for w in waves]
    for wave, future in zip(waves, futures, strict=True):
        want = Engine(LocalModel(limit=1)).run([wave], features=True)[0]
        np.testing.assert_allclose(future.result(20).output.features, want.features, atol=1e-6)


def test_a_burst_shares_a_batch(batcher: Batcher) -> None:
    gate, first = held(batcher)
    engine = Engine(LocalModel())
    futures = [batcher.submit(engine, clip(1, i), deadline_s=30) for i in range(10)]
    gate.open.set()
    first.result(20)
    assert [f.result(20).batch_size for f in futures] == [8] * 8 + [2] * 2


def test_full_queue_says_when_to_come_back() -> None:
    batcher = Batcher(Limits(queue_requests=2))
    gate, first = held(batcher)
    engine = Engine(LocalModel())
    waiting = [batcher.submit(engine, clip(), deadline_s=30) for _ in range(2)]
    with pytest.raises(BusyError) as caught:
        batcher.submit(engine, clip(), deadline_s=30)
    assert caught.value.code == "BUSY" and 1 <= caught.value.facts["retry_after_s"] <= 60
    assert batcher.load().rejected == 1
    gate.open.set()
    for future in [first, *waiting]:
        future.result(20)
    batcher.close()


def test_bound_on_waiting_audio_always_takes_one() -> None:
    batcher = Batcher(Limits(queue_audio_s=2))
    gate, _ = held(batcher)
    engine = Engine(LocalModel())
    long = batcher.submit(engine, clip(5), deadline_s=30)
    with pytest.raises(BusyError):
        batcher.submit(engine, clip(1), deadline_s=30)
    gate.open.set()
    long.result(20)
    batcher.close()


def test_deadline_is_told_promptly(batcher: Batcher) -> None:
    gate, _ = held(batcher)
    future = batcher.submit(Engine(LocalModel()), clip(), deadline_s=0.05)
    time.sleep(0.1)
    batcher.check()
    with pytest.raises(BusyError) as caught:
        future.result(0)
    assert caught.value.code == "INFERENCE_TIMEOUT" and batcher.load().late == 1
    gate.open.set()


def test_cancelled_work_is_not_run(batcher: Batcher) -> None:
    gate, first = held(batcher)
    cancel, model = threading.Event(), LocalModel()
    future = batcher.submit(Engine(model), clip(), deadline_s=30, cancel=cancel)
    cancel.set()
    gate.open.set()
    with pytest.raises(BusyError):
        future.result(20)
    first.result(20)
    assert model.batches == []


def test_cancel_between_windows(batcher: Batcher) -> None:
    cancel = threading.Event()
    model = LocalModel(WindowPlan(1, 1, 0), limit=1)
    future = batcher.submit(Engine(model), clip(20), deadline_s=30, cancel=cancel, progress=lambda part: cancel.set())
    with pytest.raises(BusyError):
        future.result(20)
    assert len(model.batches) < 3


@pytest.mark.parametrize("position", range(8))
def test_poison_fails_alone(batcher: Batcher, position: int) -> None:
    class Poisoned(LocalModel):
        def forward(self, waves):
            if any((w == POISON).all() for w in waves):
                raise ValueError("poison")
            return super().forward(waves)

        def scale(self, samples):
            return Scale()

    gate, _ = held(batcher)
    engine, plain = Engine(Poisoned()), Poisoned(limit=1)
    waves = [clip(1, i) for i in range(8)]
    waves[position] = Waveform(np.full(16_000, POISON))
    futures = [batcher.submit(engine, w, deadline_s=30) for w in waves]
    gate.open.set()
    for i, (wave, future) in enumerate(zip(waves, futures, strict=True)):
        if i == position:
            with pytest.raises(ModelError, match="poison"):
                future.result(20)
        else:
            want = Engine(plain).run([wave])[0]
            np.testing.assert_allclose(future.result(20).output.logits, want.logits, atol=1e-5)


def test_numbers_that_are_none_fail_alone_and_later_work_succeeds(batcher: Batcher) -> None:
    broken = LocalModel()
    broken._head[:] = np.nan
    with pytest.raises(ModelError):
        batcher.submit(Engine(broken), clip(), deadline_s=30).result(20)
    assert batcher.submit(Engine(LocalModel()), clip(), deadline_s=30).result(20).output.n_frames == 49


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_worker_is_replaced(batcher: Batcher) -> None:
    def die(size: int) -> None:
        raise SystemExit

    future = batcher.submit(Engine(LocalModel(before=die)), clip(), deadline_s=30)
    batcher._worker.join(20)
    batcher.check()
    with pytest.raises(EmotionError):
        future.result(5)
    assert batcher.submit(Engine(LocalModel()), clip(), deadline_s=30).result(20)
    assert batcher.load().workers_replaced == 1


def test_hanging_worker_is_replaced(batcher: Batcher, monkeypatch) -> None:
    monkeypatch.setattr(batcher_module, "HANG_BASE_S", 0.05)
    monkeypatch.setattr(batcher_module, "HANG_FACTOR", 0.0)
    gate, hung = held(batcher)
    time.sleep(0.1)
    batcher.check()
    with pytest.raises(ModelError, match="stopped answering"):
        hung.result(5)
    monkeypatch.setattr(batcher_module, "HANG_BASE_S", 30.0)
    assert batcher.submit(Engine(LocalModel()), clip(), deadline_s=30).result(20)
    gate.open.set()


def test_live_windows_pass_a_long_upload_and_uploads_pass_live_windows(batcher: Batcher) -> None:
    order: list[str] = []
    long = Engine(LocalModel(WindowPlan(1, 1, 0), limit=1, before=lambda n: (order.append("upload"), time.sleep(0.01))))
    live = Engine(LocalModel(before=lambda n: order.append("stream")))
    upload = batcher.submit(long, clip(30), deadline_s=30)
    streams = [batcher.submit(live, clip(1, i), deadline_s=30, lane="stream", key=str(i)) for i in range(10)]
    for future in streams:
        future.result(20)
    upload.result(20)
    last = len(order) - 1 - order[::-1].index("stream")
    assert order[:last].count("upload") <= 12  # live windows did not wait for the whole upload
    assert "upload" in order[order.index("stream") : last + 1] or order.count("stream") <= 2


def test_newer_window_replaces_the_waiting_one(batcher: Batcher) -> None:
    gate, _ = held(batcher)
    engine = Engine(LocalModel())
    old = batcher.submit(engine, clip(1, 1), deadline_s=30, lane="stream", key="s1")
    new = batcher.submit(engine, clip(1, 2), deadline_s=30, lane="stream", key="s1")
    other = batcher.submit(engine, clip(1, 3), deadline_s=30, lane="stream", key="s2")
    gate.open.set()
    with pytest.raises(BusyError) as caught:
        old.result(20)
    assert caught.value.code == "CANCELLED" and new.result(20) and other.result(20)


def test_close_tells_everybody() -> None:
    batcher = Batcher(Limits())
    gate, running = held(batcher)
    waiting = batcher.submit(Engine(LocalModel()), clip(), deadline_s=30)
    batcher.close(wait_s=0.1)
    for future in (running, waiting):
        with pytest.raises(BusyError) as caught:
            future.result(1)
        assert caught.value.code == "SHUTTING_DOWN"
    with pytest.raises(BusyError):
        batcher.submit(Engine(LocalModel()), clip(), deadline_s=30)
    gate.open.set()
