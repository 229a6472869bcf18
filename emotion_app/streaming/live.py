"""A session at work: its requests go to the model's queue, its events to whoever is connected."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from emotion_app import audio
from emotion_app.analyzer import Analyzer, Options
from emotion_app.baseline import Baseline
from emotion_app.batcher import Answer
from emotion_app.errors import BusyError, EmotionError, ModelError
from emotion_app.pool import Loaded
from emotion_app.streaming import scoring
from emotion_app.streaming.events import Event, SessionEnded, SessionReady, SessionStats, error_event
from emotion_app.streaming.outbox import Outbox
from emotion_app.streaming.protocol import SessionUpdate
from emotion_app.streaming.results import Answered, Request
from emotion_app.streaming.session import Action, Session
from emotion_app.types import Timing, Waveform

log = logging.getLogger(__name__)

SLICE_S = 0.5  # sound handled in one go on the event loop: 16 detector windows, about 2 ms
RETRY_S = 0.25  # a final answer that met a full queue is offered again after this long
OFF, AUTO = "off", "auto"  # of Config.baseline; anything else is the name of a saved one
CLOSE_S = 2.0  # how long a connection may take to close
CLOSE_DONE, CLOSE_POLICY, CLOSE_BUSY, CLOSE_TAKEN, CLOSE_SLOW = 1000, 1008, 1013, 4001, 4002


class LinkLost(ConnectionError):
    """The other side is gone."""


class Link(Protocol):
    """A connection that can be told events."""

    async def send(self, event: Event) -> None:
        """Send, waiting while the other side does not read; LinkLost when it is gone."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close; never raises."""
        ...


@dataclass(frozen=True, eq=False)
class Shared:
    """What all sessions of a server use together."""

    analyzer: Analyzer
    threads: Executor
    told: Callable[[Event], None]


class Live:
    """One session with its clocks, its place in the model's queue and its connection.

    Args:
        name: public id.
        secret: what proves that a client owns it.
        session: the core.
        shared: analyzer and threads.

    Attributes:
        link: who is connected, or None.
        left_at: when the connection was lost (monotonic), None while there is one.
        over: the last event is in the outbox.
        slow: a client was closed because it did not read.
    """

    def __init__(self, name: str, secret: str, session: Session, shared: Shared) -> None:
        self.name, self.secret, self.session = name, secret, session
        self._shared = shared
        self._limits = shared.analyzer.settings.limits
        self.outbox = Outbox(name, self._limits.stream_events)
        self.link: Link | None = None
        self._pump: asyncio.Task[None] | None = None
        self.began_at = self.heard_at = self._stats_at = time.monotonic()
        self.left_at: float | None = self.began_at
        self.over = False
        self.slow = 0
        self._loaded: Loaded | None = None
        self._resets: list[int] = []  # of the baseline, before the model was there: after these requests
        self._waiting: list[Request] = []  # utterances that ended before the model was there
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancel = threading.Event()
        self._ending: str | None = None

    # -- connection ----------------------------------------------------------------------------------------------

    def attach(self, link: Link, first: Event | None = None) -> None:
        """``link`` is told from now on: ``first``, then what waits in the outbox. An older link is sent away."""
        self._send_away()
        self.link, self.left_at = link, None
        self.heard_at = time.monotonic()
        self._pump = asyncio.create_task(self._send_events(link, first), name=f"pump {self.name}")

    def detach(self, link: Link) -> None:
        """``link`` is gone; the session waits for its client."""
        if self.link is link:
            self.link, self.left_at = None, time.monotonic()
            if self._pump is not None and self._pump is not asyncio.current_task():
                self._pump.cancel()
            self._pump = None

    def _send_away(self) -> None:
        if self.link is not None:
            old = self.link
            self.detach(old)
            self._spawn(_send_away(old))

    async def _send_events(self, link: Link, event: Event | None) -> None:
        while self.link is link:  # not only cancellation: before Python 3.12 ``wait_for`` may swallow one
            event = event or self.outbox.take()
            if event is None:
                if self.over:
                    self.detach(link)
                    await close_link(link, CLOSE_DONE, "the session is over")
                    return
                await self.outbox.wait()
                continue
            try:
                await asyncio.wait_for(link.send(event), self._limits.stream_slow_s)
            except asyncio.TimeoutError:
                self.slow += 1
                log.warning("session %s: slow client closed", self.name)
                self.detach(link)
                await close_link(link, CLOSE_SLOW, "SLOW_CLIENT")
                return
            except LinkLost:
                self.detach(link)
                return
            event = None

    # -- what the client says ------------------------------------------------------------------------------------

    async def feed(self, link: Link, data: bytes, position: int | None = None) -> None:
        """Take PCM from ``link``, in slices, so that one client's seconds of sound do not hold up the others."""
        step = 2 * max(1, round(SLICE_S * self.session.config.sample_rate))
        for at in range(0, len(data), step):
            if self.link is not link or self.over or self.ending:
                return
            here = None if position is None else position + at // 2
            self.act(self.session.push(data[at : at + step], time.monotonic(), here))
            if at + step < len(data):
                await asyncio.sleep(0)

    def update(self, message: SessionUpdate) -> bool:
        """Change the configuration; True when another model is wanted."""
        before = self.session.config
        self.act(self.session.update(message, time.monotonic()))
        if self.session.config.baseline != before.baseline:
            self.reset_baseline()
        return self.session.config.model != before.model

    def tell(self, event: Event) -> None:
        """Put an event into the outbox."""
        if self.over:
            return
        if isinstance(event, SessionEnded):
            self.over = True
        self._shared.told(event)
        self.outbox.put(event)

    def fail(self, error: EmotionError, *, fatal: bool = False) -> None:
        """Tell an error."""
        self.tell(error_event(error, fatal=fatal))

    def act(self, actions: Iterable[Action]) -> None:
        """Do what the session wants."""
        for action in actions:
            if isinstance(action, Event):
                self.tell(action)
            else:
                self._ask(action)

    def end(self, reason: str) -> None:
        """Bring it to an end: what is running gets its final answer, then session.ended."""
        if self._ending is None and not self.over:
            self.act(self.session.end(time.monotonic()))
            self._ending = reason
            self._end_when_done()

    def drop(self) -> None:
        """End it at once; nothing more is computed for it."""
        self._cancel.set()
        self.over = True
        for task in self._tasks:
            task.cancel()
        self.outbox.wake()

    def tick(self, now: float) -> None:
        """Periodic statistics."""
        every = self.session.config.stats_s
        if every and self.link is not None and now - self._stats_at >= every:
            self._stats_at = now
            self.tell(SessionStats(stats=self.session.stats()))

    # -- the model -----------------------------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """True once its end was asked for."""
        return self._ending is not None

    @property
    def busy(self) -> bool:
        """True while an answer is awaited."""
        return self.session.pending > 0

    def unload(self) -> None:
        """The model is about to change."""
        self._loaded = None

    def ready(self, loaded: Loaded) -> None:
        """The model is there."""
        self._loaded = loaded
        info, notes = loaded.engine.info, loaded.notes
        self.tell(
            SessionReady(
                model=info.name,
                precision=info.precision,
                window_precision=loaded.engine.interim.info.precision,
                device=info.device,
                embedded=info.embedded,
                notes=tuple(n.text("en") for n in notes),
                notes_zh=tuple(n.text("zh") for n in notes),
            )
        )
        for after in (0, *self._resets):
            self._use_baseline(after)
        self._resets.clear()
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            self._ask(request)

    def reset_baseline(self) -> None:
        """Another baseline, or the same begun anew, for the sound that comes from now on."""
        self._resets.append(self.session.asked)
        if self._loaded is not None:
            self._use_baseline(self._resets.pop())

    def _use_baseline(self, after: int) -> None:
        """Score what was asked beyond ``after`` by the configured baseline; what does not fit is told."""
        wanted, loaded, analyzer = self.session.config.baseline, self._loaded, self._shared.analyzer
        scorer: scoring.Scorer = scoring.plain
        if wanted != OFF and loaded is not None:
            try:
                rule = analyzer.need_rule(loaded)
                if wanted == AUTO:
                    own = Baseline.empty("session", loaded.engine.info, rule, None)
                    scorer = scoring.Running(rule, own, learns=True)
                else:
                    saved = analyzer.baselines.open(wanted)
                    saved.check(loaded.engine.info)
                    scorer = scoring.Running(rule, saved, learns=False)
            except EmotionError as error:
                self.fail(error)
        self.session.score_by(scorer, after)

    def _ask(self, request: Request) -> None:
        if request.kind == "final":
            if self._loaded is None:
                self._waiting.append(request)
            else:
                self._spawn(self._final(request, self._loaded))
            return
        if self._loaded is None:
            self._failed(request, ModelError("MODEL_LOADING", percent=None))
            return
        waveform = Waveform(request.samples, "window")
        try:
            future = self._shared.analyzer.batcher.submit(
                self._loaded.engine.interim,
                waveform,
                deadline_s=self._limits.stream_deadline_s,
                lane="stream",
                key=self.name,
                cancel=self._cancel,
            )
        except BusyError as error:
            self._failed(request, error)
        else:
            asyncio.wrap_future(future).add_done_callback(partial(self._window_done, request, self._loaded))

    def _window_done(self, request: Request, loaded: Loaded, future: asyncio.Future[Answer]) -> None:
        if future.cancelled() or self._cancel.is_set():
            return
        error = future.exception()
        if error is None:
            answer = future.result()
            self._answered(request, Answered(answer.output, loaded.engine.info.name, time.monotonic()))
        else:
            self._failed(request, _as_emotion_error(error))

    async def _final(self, request: Request, loaded: Loaded) -> None:
        """The whole utterance on the road of an upload: quality notes, queue, timeline."""
        loop, shared = asyncio.get_running_loop(), self._shared
        began = time.monotonic()
        try:
            load = partial(
                audio.load, request.samples, limits=self._limits, name=f"utterance {request.utterance.number}"
            )
            waveform = await loop.run_in_executor(shared.threads, load)
            answer = await asyncio.wrap_future(await self._queue_final(loaded, waveform, began))
            options, timing = Options("frame"), Timing(queue_s=answer.queue_s, infer_s=answer.infer_s)
            result = await loop.run_in_executor(
                shared.threads, shared.analyzer.assemble, waveform, answer.output, options, loaded, timing
            )
        except EmotionError as error:
            self._failed(request, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - one utterance must not end the session
            self._failed(request, _as_emotion_error(error))
        else:
            self._answered(request, Answered(answer.output, loaded.engine.info.name, time.monotonic(), result))

    async def _queue_final(self, loaded: Loaded, waveform: Waveform, began: float) -> Future[Answer]:
        """A place in the queue; a full queue is asked again until the deadline of a page's request."""
        while True:
            left = self._limits.deadline_s - (time.monotonic() - began)
            try:
                return self._shared.analyzer.batcher.submit(
                    loaded.engine, waveform, deadline_s=max(0.0, left), lane="final", cancel=self._cancel
                )
            except BusyError as error:
                if error.code != "BUSY" or left <= 0:
                    raise
            await asyncio.sleep(RETRY_S)

    def _answered(self, request: Request, answered: Answered) -> None:
        for event in self.session.answered(request, answered):
            self.tell(event)
        self._end_when_done()

    def _failed(self, request: Request, error: EmotionError) -> None:
        for event in self.session.failed(request, error):
            self.tell(event)
        self._end_when_done()

    def give_up(self, error: EmotionError) -> None:
        """There will be no model: what waits for it fails, and the session ends."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            self._failed(request, error)
        self.fail(error, fatal=True)
        self.end(error.code)

    def _end_when_done(self) -> None:
        if self._ending is not None and not self.over and not self.session.pending:
            self.tell(SessionEnded(reason=self._ending, stats=self.session.stats()))

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def close_link(link: Link, code: int, reason: str) -> None:
    """Close, but do not wait for ever."""
    try:
        await asyncio.wait_for(link.close(code, reason), CLOSE_S)
    except (asyncio.TimeoutError, LinkLost):
        log.debug("a connection did not close in time")


async def _send_away(link: Link) -> None:
    try:
        await asyncio.wait_for(link.send(error_event(BusyError("SESSION_TAKEN"), fatal=True)), CLOSE_S)
    except (asyncio.TimeoutError, LinkLost):
        log.debug("the older connection could not be told")
    await close_link(link, CLOSE_TAKEN, "SESSION_TAKEN")


def _as_emotion_error(error: BaseException) -> EmotionError:
    if isinstance(error, EmotionError):
        return error
    log.error("a live request failed", exc_info=error)
    return ModelError("INFERENCE_FAILED", reason=f"{type(error).__name__}: {error}"[:200])
