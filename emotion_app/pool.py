"""Loaded models: each loaded once, at the first request for it, whoever asks first; and what state each is in."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from emotion_app.engine import Engine
from emotion_app.errors import EmotionError
from emotion_app.models.loader import Choice, load_model, resolve
from emotion_app.notes import Note
from emotion_app.settings import Settings
from emotion_app.types import ModelInfo

log = logging.getLogger(__name__)

State = Literal["not_loaded", "downloading", "loading", "ready", "failed"]
DOWNLOAD_SHARE = 0.9  # of the progress of a load that begins with a download; the rest is converting and loading
MAX_LOADED = 2  # models kept in memory, e.g. large and embedded; the least recently used goes first


@dataclass(frozen=True)
class ModelStatus:
    """State of one model choice, for the page's chip, ``/readyz`` and metrics.

    Attributes:
        state: where it stands.
        percent: progress of a download or load, 0..100.
        info: the model, once it is ready.
        note: why another model answers than Emotion2Vec+ Large, if so.
        error: why it failed, if it did.
        detail: what is happening, in one line.
    """

    state: State
    percent: float = 0.0
    info: ModelInfo | None = None
    note: Note | None = None
    error: EmotionError | None = None
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to run, with notes about its choice and precision and the seconds that loading took just now."""

    engine: Engine
    notes: tuple[Note, ...]
    load_s: float


class ModelPool:
    """Thread-safe table of loaded models.

    Args:
        settings: model, engine, precision, device, hub.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._engines: OrderedDict[tuple[str, str], Engine] = OrderedDict()
        self._status: dict[tuple[str, str], ModelStatus] = {}

    def get(
        self,
        name: str | None = None,
        precision: str | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> Loaded:
        """The engine for a model, loaded if need be; a second caller waits for the first one's load.

        Args:
            name: as in ``Settings.model``; None for the setting.
            precision: as in ``Settings.precision``; None for the setting.
            progress: called with (fraction, what) while files are fetched and loaded.

        Raises:
            ModelError: see ``models.loader``.
        """
        settings = self._settings if precision is None else self._settings.model_copy(update={"precision": precision})
        choice = resolve(name or settings.model, settings)
        key = _key(choice, settings.precision)
        with self._lock:
            gate = self._loading.setdefault(key, threading.Lock())
        began = time.monotonic()
        with gate:
            engine = self._engines.get(key)
            load_s = 0.0
            if engine is None:
                engine = self._load(key, choice, name or settings.model, settings, progress)
                load_s = time.monotonic() - began
        with self._lock:
            self._engines[key] = engine
            self._engines.move_to_end(key)
            while len(self._engines) > MAX_LOADED:
                gone, _ = self._engines.popitem(last=False)
                self._status.pop(gone, None)
                log.info("model %s unloaded", gone[0])
        notes = (*([choice.reason] if choice.reason else []), *getattr(engine.model, "notes", ()))
        return Loaded(engine, notes, load_s)

    def status(self, name: str | None = None) -> ModelStatus:
        """Where a model choice stands, without loading or downloading anything."""
        try:
            choice = resolve(name or self._settings.model, self._settings)
        except EmotionError as error:
            return ModelStatus("failed", error=error)
        with self._lock:
            found = self._status.get(_key(choice, self._settings.precision), ModelStatus("not_loaded"))
        return replace(found, note=choice.reason)

    def loaded(self) -> tuple[ModelInfo, ...]:
        """Models in memory now."""
        with self._lock:
            return tuple(engine.info for engine in self._engines.values())

    def oom_steps(self) -> int:
        """How often memory ran out, over all loaded models."""
        with self._lock:
            return sum(engine.oom_steps for engine in self._engines.values())

    def _load(
        self,
        key: tuple[str, str],
        choice: Choice,
        name: str,
        settings: Settings,
        progress: Callable[[float, str], None] | None,
    ) -> Engine:
        def report(fraction: float, line: str) -> None:
            fetching = not choice.ready and fraction < DOWNLOAD_SHARE
            self._set(key, ModelStatus("downloading" if fetching else "loading", 100 * fraction, detail=line))
            if progress is not None:
                progress(fraction, "download" if fetching else "load")

        name = choice.name if choice.reason is not None else name
        self._set(key, ModelStatus("loading"))
        try:
            model = load_model(name, settings, report)
        except EmotionError as error:
            self._set(key, ModelStatus("failed", error=error))
            raise
        on_cpu = settings.model_copy(update={"device": "cpu", "precision": "fp32"})
        fallback = None if model.info.device == "cpu" else lambda: load_model(name, on_cpu, None)
        log.info("model ready: %s %s on %s", model.info.name, model.info.precision, model.info.device)
        self._set(key, ModelStatus("ready", 100.0, model.info))
        return Engine(model, fallback=fallback, max_batch=settings.limits.batch_clips)

    def _set(self, key: tuple[str, str], status: ModelStatus) -> None:
        with self._lock:
            self._status[key] = status


def _key(choice: Choice, precision: str) -> tuple[str, str]:
    """Two directories may have one name; a model from a hub keeps its key while its files arrive."""
    from_hub = choice.repos or choice.directory is None
    return choice.name if from_hub else str(choice.directory), precision
