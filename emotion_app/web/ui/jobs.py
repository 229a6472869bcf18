"""Analyses asked for by pages: run beside the event loop, watched, cancelled when nobody waits any more."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from emotion_app.analyzer import Analyzer, Options, Progress
from emotion_app.charts import result_charts
from emotion_app.errors import BusyError, EmotionError
from emotion_app.labels import Lang
from emotion_app.metrics import Metrics
from emotion_app.store import SavedResult, Store
from emotion_app.types import Result
from emotion_app.web.ui.views import Done, Failed, Running, Step, View, view_of

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 0.1  # how often a running job is looked at
TELL_S = 1.0  # a page hears at least this often that its job is alive
ORDER = ("decode", "download", "load", "queue", "infer", "save")


class Log:
    """Steps of one job, written by worker threads and read by the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, tuple[float, float, float | None]] = {}  # name -> (began, fraction, seconds)
        self.result: Result | None = None  # there before it is saved: people need not wait for the pictures

    def tell(self, progress: Progress) -> None:
        """Take a report of the analyzer."""
        self.mark(progress.step, progress.fraction, progress.seconds or None)

    def mark(self, name: str, fraction: float, seconds: float | None = None) -> None:
        """Set the state of a step; a step that begins ends those before it."""
        now = time.monotonic()
        with self._lock:
            if name not in self._steps:
                for earlier, (began, part, took) in self._steps.items():
                    if part < 1:
                        self._steps[earlier] = (began, 1.0, took if took is not None else now - began)
            began, _, took = self._steps.get(name, (now, 0.0, None))
            if fraction >= 1 and seconds is None and took is None:
                seconds = now - began
            self._steps[name] = (began, fraction, seconds if seconds is not None else took)

    def last(self) -> str | None:
        """Name of the step that began last."""
        steps = self.steps()
        return steps[-1].name if steps else None

    def steps(self) -> tuple[Step, ...]:
        """All steps in the order in which they are taken."""
        now = time.monotonic()
        with self._lock:
            items = sorted(self._steps.items(), key=lambda item: ORDER.index(item[0]))
        return tuple(Step(name, part, took if took is not None else now - began) for name, (began, part, took) in items)


class Jobs:
    """Runs analyses for pages and API calls, one thread each, and can stop them.

    Args:
        analyzer: does the work; its queue is the bound on how much waits.
        store: keeps the results.
        metrics: counts answers and failures.
    """

    def __init__(self, analyzer: Analyzer, store: Store, metrics: Metrics) -> None:
        self.analyzer = analyzer
        self.store = store
        self._metrics = metrics
        self._cancels: dict[str, threading.Event] = {}  # one for each page that waits
        self._closed = threading.Event()

    def run(
        self, path: Path, name: str, options: Options, tell: Log, cancel: threading.Event, lang: Lang = "en"
    ) -> tuple[Result, SavedResult]:
        """Analyze an untrusted file and keep the result, with pictures in ``lang``. Blocks.

        Raises:
            EmotionError: from decoding, model, queue or store.
        """
        try:
            return self._run(path, name, options, tell, cancel, lang)
        except EmotionError as error:
            self._metrics.failed("page", error)
            raise

    def _run(
        self, path: Path, name: str, options: Options, tell: Log, cancel: threading.Event, lang: Lang
    ) -> tuple[Result, SavedResult]:
        if self._closed.is_set():
            raise BusyError("SHUTTING_DOWN")
        limits = self.analyzer.settings.limits
        self.store.check_space()
        result = self.analyzer.analyze(
            path,
            options,
            name=name,
            max_s=limits.clip_s,
            isolated=True,
            deadline_s=limits.deadline_s,
            progress=tell.tell,
            cancel=cancel,
        )
        if cancel.is_set():
            raise BusyError("CANCELLED")
        tell.result = result
        tell.mark("save", 0.0)
        saved = self.store.save(result, result_charts(result, lang))
        tell.mark("save", 1.0)
        self._metrics.answered("page", result)
        return result, saved

    async def watch(self, session: str, path: Path, name: str, options: Options, lang: Lang) -> AsyncIterator[View]:
        """The same for a page: yields what to show, last a Done or a Failed.

        Args:
            session: the page; a new job of the same page stops the one before.
            path: the file.
            name: its name for people.
            options: what to compute.
            lang: of the pictures in the folder.
        """
        self.cancel(session)
        steps, cancel = Log(), threading.Event()
        self._cancels[session] = cancel
        future = in_thread(lambda: self.run(path, name, options, steps, cancel, lang))
        shown: tuple[tuple[str, int], ...] = ()
        told = 0.0
        try:
            while not future.done():
                if cancel.is_set():  # at once, even if the thread sits in a download that others may be waiting for too
                    yield Failed(BusyError("CANCELLED"), options.model or "auto", steps.steps())
                    return
                self._follow_load(options.model, steps)
                now, state = time.monotonic(), tuple((s.name, int(100 * s.fraction)) for s in steps.steps())
                if state != shown or now - told >= TELL_S:
                    shown, told = state, now
                    result = steps.result
                    yield Running(name, steps.steps()) if result is None else view_of(result, None, steps.steps())
                await asyncio.sleep(LOOK_S)
            yield finished(future, steps, options)
        finally:
            cancel.set()
            if self._cancels.get(session) is cancel:
                del self._cancels[session]

    def _follow_load(self, model: str | None, steps: Log) -> None:
        """A job that waits for a load which another one began shows that load's progress."""
        if steps.last() in ("decode", "download", "load"):
            status = self.analyzer.status(model)
            if status.state in ("downloading", "loading") and status.percent:
                steps.mark("download" if status.state == "downloading" else "load", status.percent / 100)

    def cancel(self, session: str) -> None:
        """Stop the job of a page, if it has one."""
        if session in self._cancels:
            self._cancels[session].set()

    def close(self) -> None:
        """Stop all jobs and take no more."""
        self._closed.set()
        for cancel in list(self._cancels.values()):
            cancel.set()


def finished(future: Future[tuple[Result, SavedResult]], steps: Log, options: Options) -> Done | Failed:
    """What to show of a job that ended."""
    error = future.exception()
    if error is None:
        result, saved = future.result()
        return view_of(result, saved, steps.steps())
    return Failed(as_problem(error), options.model or "auto", steps.steps())


def as_problem(error: BaseException) -> EmotionError:
    """The error itself, or INTERNAL with a report id under which the log has the rest."""
    if isinstance(error, EmotionError):
        return error
    report_id = uuid.uuid4().hex[:8]
    log.error("report %s", report_id, exc_info=error)
    return EmotionError("INTERNAL", report_id=report_id)


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a daemon thread: one that hangs in a driver must not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is read
            future.set_exception(error)

    threading.Thread(target=run, name="analysis", daemon=True).start()
    return future
