"""The bounded queue in front of the model, and the one thread that runs it.

Thread-safety: callers only touch the queue under its lock and wait on futures; engines are called by the worker
thread alone. Three lanes take turns step by step: ``stream`` (windows of live streams), ``final`` (their utterances)
and ``upload``. A long clip is computed batch by batch, and the other lanes have their turn after each: none starves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from emotion_app.engine import Engine, Steps
from emotion_app.errors import BusyError, EmotionError, ModelError
from emotion_app.settings import Limits
from emotion_app.types import FrameOutput, Waveform

log = logging.getLogger(__name__)

Lane = Literal["stream", "final", "upload"]
LANES: tuple[Lane, ...] = ("stream", "final", "upload")
BATCHABLE_S = 4.0  # only clips up to this length wait for company; longer ones fill the machine alone
HANG_BASE_S = 30.0  # a step that takes longer than this plus HANG_FACTOR x its audio is taken for dead
HANG_FACTOR = 10.0


@dataclass(eq=False)
class _Request:
    engine: Engine
    waveform: Waveform
    features: bool
    deadline: float  # monotonic; until when it may wait
    deadline_s: float
    progress: Callable[[float], None] | None
    cancel: threading.Event | None
    lane: Lane
    key: str | None
    submitted: float
    future: Future[Answer] = field(default_factory=Future)
    started: float = 0.0

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True, eq=False)
class Answer:
    """A frame output with the seconds it waited and the seconds it took (of its whole batch)."""

    output: FrameOutput
    queue_s: float
    infer_s: float
    batch_size: int


@dataclass(frozen=True)
class Load:
    """What the queue holds now, for metrics and for the health page."""

    requests: int
    audio_s: float
    running: int
    late: int
    rejected: int
    workers_replaced: int


class Batcher:
    """Submit clips from any thread; answers come in futures.

    Args:
        limits: bounds of the queue (``queue_requests``, ``queue_audio_s``), of a batch and of the wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes: dict[Lane, deque[_Request]] = {lane: deque() for lane in LANES}
        self._wake = threading.Condition()
        self._worker: threading.Thread | None = None
        self._generation = 0
        self._running: list[_Request] = []
        self._step_until = float("inf")
        self._closed = False
        self._late = self._rejected = self._replaced = 0
        self._rate = 1.0  # seconds of work per second of audio, a running mean: for Retry-After

    def submit(
        self,
        engine: Engine,
        waveform: Waveform,
        *,
        deadline_s: float,
        features: bool = False,
        lane: Lane = "upload",
        key: str | None = None,
        progress: Callable[[float], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Future[Answer]:
        """Queue one clip.

        Args:
            engine: who computes it.
            waveform: the clip.
            deadline_s: seconds it may wait; then its future fails with INFERENCE_TIMEOUT.
            features: keep (T, D) features.
            lane: ``stream`` for live windows, ``final`` for their utterances.
            key: a waiting request of the same lane and key is replaced (its future fails with CANCELLED).
            progress: called from the model thread with the share done.
            cancel: checked before and between steps.

        Raises:
            BusyError: BUSY with ``retry_after_s`` when the queue is full, SHUTTING_DOWN after close.
        """
        now = time.monotonic()
        request = _Request(engine, waveform, features, now + deadline_s, deadline_s, progress, cancel, lane, key, now)
        with self._wake:
            if self._closed:
                raise BusyError("SHUTTING_DOWN")
            replaced = self._take_same_key(lane, key)
            waiting = sum(map(len, self._lanes.values()))
            audio_s = self._audio_waiting()
            full = waiting >= self._limits.queue_requests or (
                waiting > 0 and audio_s + waveform.duration_s > self._limits.queue_audio_s
            )
            if full:
                self._rejected += 1
                raise BusyError("BUSY", retry_after_s=max(1.0, min(60.0, audio_s * self._rate)))
            self._lanes[lane].append(request)
            self._ensure_worker()
            self._wake.notify_all()
        if replaced is not None:
            replaced.fail(BusyError("CANCELLED"))
        return request.future

    def load(self) -> Load:
        """Queue length, running work and counters."""
        with self._wake:
            waiting = sum(map(len, self._lanes.values()))
            return Load(waiting, self._audio_waiting(), len(self._running), self._late, self._rejected, self._replaced)

    def check(self) -> None:
        """Replace a worker that died or hangs, tell late requests; whoever waits for an answer calls this at times."""
        with self._wake:
            if not self._closed and (self._running or any(self._lanes.values())):
                self._ensure_worker()
            gone = self._sort_out()
        for request, error in gone:
            request.fail(error)

    def close(self, wait_s: float = 2.0) -> None:
        """Refuse new work, fail what waits with SHUTTING_DOWN, wait for the running step at most ``wait_s``."""
        with self._wake:
            self._closed = True
            waiting = [r for lane in self._lanes.values() for r in lane]
            for lane in self._lanes.values():
                lane.clear()
            running = list(self._running)
            self._wake.notify_all()
            worker = self._worker
        for request in waiting:
            request.fail(BusyError("SHUTTING_DOWN"))
        if worker is not None and worker is not threading.current_thread():
            worker.join(wait_s)
        for request in running:
            request.fail(BusyError("SHUTTING_DOWN"))

    # -- under the lock ------------------------------------------------------------------------------------------

    def _audio_waiting(self) -> float:
        return sum(r.waveform.duration_s for lane in self._lanes.values() for r in lane)

    def _take_same_key(self, lane: Lane, key: str | None) -> _Request | None:
        if key is None:
            return None
        same = next((r for r in self._lanes[lane] if r.key == key), None)
        if same is not None:
            self._lanes[lane].remove(same)
        return same

    def _ensure_worker(self) -> None:
        """Start the worker, or replace one that died or hangs. Its requests get an answer; its results are dropped."""
        alive = self._worker is not None and self._worker.is_alive()
        hangs = alive and time.monotonic() > self._step_until
        if alive and not hangs:
            return
        if self._worker is not None:
            self._replaced += 1
            log.error("model thread %s: replaced", "hangs" if hangs else "died")
            for request in self._running:
                request.fail(ModelError("INFERENCE_FAILED", reason="the model thread stopped answering"))
        self._generation += 1
        self._running, self._step_until = [], float("inf")
        self._worker = threading.Thread(
            target=self._work, args=(self._generation,), name=f"model-{self._generation}", daemon=True
        )
        self._worker.start()

    def _sort_out(self) -> list[tuple[_Request, EmotionError]]:
        """Take requests out of the queue that are late or cancelled, with the error each will get."""
        now, gone = time.monotonic(), []
        for name, lane in self._lanes.items():
            keep: deque[_Request] = deque()
            for request in lane:
                if request.future.cancelled() or (request.cancel is not None and request.cancel.is_set()):
                    gone.append((request, BusyError("CANCELLED")))
                elif now > request.deadline:
                    self._late += 1
                    gone.append((request, BusyError("INFERENCE_TIMEOUT", limit_s=request.deadline_s)))
                else:
                    keep.append(request)
            self._lanes[name] = keep
        return gone

    def _take_batch(self, lane: Lane) -> list[_Request]:
        """The first request of the lane with those behind it that may share its batch."""
        queue = self._lanes[lane]
        batch = [queue.popleft()]
        if batch[0].waveform.duration_s <= BATCHABLE_S:
            for request in list(queue):
                same = request.engine is batch[0].engine and request.features == batch[0].features
                if len(batch) < self._limits.batch_clips and same and request.waveform.duration_s <= BATCHABLE_S:
                    queue.remove(request)
                    batch.append(request)
        return batch

    # -- the worker ----------------------------------------------------------------------------------------------

    def _work(self, generation: int) -> None:
        at_work: dict[Lane, _Work] = {}
        turn = 0
        while True:
            with self._wake:
                while not at_work and not any(self._lanes.values()) and not self._closed:
                    self._wake.wait()
                if self._closed or generation != self._generation:
                    for work in at_work.values():
                        work.fail(BusyError("SHUTTING_DOWN"))
                    return
                self._wait_for_company()
                gone = self._sort_out()
                order = LANES[turn:] + LANES[:turn]
                lane = next((name for name in order if name in at_work or self._lanes[name]), None)
                if lane is not None and lane not in at_work:
                    batch = self._take_batch(lane)
                    at_work[lane] = _Work(batch)
                    self._running += batch
            for request, error in gone:
                request.fail(error)
            if lane is not None:
                turn = (LANES.index(lane) + 1) % len(LANES)
                if not self._step(at_work[lane], generation):
                    del at_work[lane]

    def _wait_for_company(self) -> None:
        """A short upload waits a moment, so that a burst of clips is computed together."""
        queue = self._lanes["upload"]
        others = any(self._lanes[lane] for lane in LANES if lane != "upload")
        alone = len(queue) == 1 and not others and queue[0].waveform.duration_s <= BATCHABLE_S
        if alone and self._limits.batch_wait_ms > 0 and self._limits.batch_clips > 1:
            self._wake.wait(self._limits.batch_wait_ms / 1000)

    def _step(self, work: _Work, generation: int) -> bool:
        """One step of ``work``; False when it is finished (answered or failed)."""
        with self._wake:
            self._step_until = time.monotonic() + HANG_BASE_S + HANG_FACTOR * work.audio_s
        more = work.step()
        with self._wake:
            if generation != self._generation:
                return False
            self._step_until = float("inf")
            if not more:
                self._running = [r for r in self._running if r not in work.requests]
                if work.audio_s and work.took_s:
                    self._rate += 0.2 * (work.took_s / work.audio_s - self._rate)
        return more


class _Work:
    """One batch on its way through the engine."""

    def __init__(self, requests: list[_Request]) -> None:
        self.requests = requests
        self.audio_s = sum(r.waveform.duration_s for r in requests)
        self.began = time.monotonic()
        self.took_s = 0.0
        self._steps: Steps | None = None

    def fail(self, error: BaseException) -> None:
        for request in self.requests:
            request.fail(error)

    def step(self) -> bool:
        """True while there is more to do. One bad clip fails alone: a failed batch is done again one by one."""
        if all(r.cancel is not None and r.cancel.is_set() for r in self.requests):
            self.fail(BusyError("CANCELLED"))
            return False
        began = time.monotonic()
        try:
            if self._steps is None:
                first = self.requests[0]
                self._steps = first.engine.steps([r.waveform for r in self.requests], features=first.features)
            fraction = next(self._steps)
            for request in self.requests:
                if request.progress is not None:
                    request.progress(fraction)
        except StopIteration as stop:
            self._answer(stop.value)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach its caller, not end the thread
            if len(self.requests) > 1:
                log.warning("a batch of %d failed (%s); again one by one", len(self.requests), type(error).__name__)
                for request in self.requests:
                    alone = _Work([request])
                    while alone.step():
                        pass
                return False
            self.fail(_as_model_error(error))
            return False
        finally:
            self.took_s += time.monotonic() - began
        return True

    def _answer(self, outputs: list[FrameOutput]) -> None:
        for request, output in zip(self.requests, outputs, strict=True):
            if not request.future.done():
                queue_s = max(0.0, self.began - request.submitted)
                request.future.set_result(Answer(output, queue_s, time.monotonic() - self.began, len(outputs)))


def _as_model_error(error: Exception) -> EmotionError:
    if isinstance(error, EmotionError):
        return error
    log.error("the model failed", exc_info=error)
    failure = ModelError("INFERENCE_FAILED", reason=f"{type(error).__name__}: {error}"[:300])
    failure.__cause__ = error
    return failure
