"""One argument that is a name, a directory or a hub id -> a model ready to answer.

``auto`` takes Emotion2Vec+ Large when its weights are on this machine, and the embedded model otherwise: a download of
1.9 GB must not stand between a person and the first answer. The result says so, and the download is an act of its own
(``emotion-app models get``, the page's button, or naming the model).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_app.calm import calm_threads
from emotion_app.errors import EmotionError, ModelError
from emotion_app.models import hub
from emotion_app.models.catalog import AUTO, LITE, MAIN, KnownModel, find, is_hub_id, known_models
from emotion_app.models.files import checkpoint_file
from emotion_app.notes import Note
from emotion_app.settings import Settings
from emotion_app.types import ModelInfo

if TYPE_CHECKING:
    from emotion_app.models import FrameModel
    from emotion_app.models.weights import Checkpoint

__all__ = [
    "Choice",
    "KnownModel",
    "Stored",
    "calm_threads",
    "fetch",
    "inspect",
    "known_models",
    "load_model",
    "model_path",
    "resolve",
    "thread_count",
]

Report = hub.Report
GET_LARGE = f"get it with: emotion-app models get {MAIN}"
GET_LARGE_ZH = f"获取方法：emotion-app models get {MAIN}"


@dataclass(frozen=True)
class Choice:
    """What a name stands for on this machine, now.

    Attributes:
        name: short name, hub id, or the directory's own name.
        family: ``lite`` or ``emotion2vec``.
        directory: where its files are; None for ``lite``, and for a model that must be downloaded first.
        repos: hub ids, by hub, where it can be had.
        reason: why the embedded model stands in, or None.
    """

    name: str
    family: str
    directory: Path | None
    repos: dict[hub.Hub, str]
    reason: Note | None = None

    @property
    def ready(self) -> bool:
        """Whether it can be loaded without asking a hub."""
        return self.family == LITE or self.directory is not None


@dataclass(frozen=True)
class Stored:
    """What ``doctor`` and ``models list`` show of a model.

    Attributes:
        choice: what the name stands for.
        weights: the checkpoint file, with its size in MB; None when it is not here.
        checkpoint: the converted weights with their record, or None before the first load.
        checks: precision self-checks, one line each.
    """

    choice: Choice
    weights: Path | None
    weights_mb: float
    checkpoint: Checkpoint | None
    checks: tuple[str, ...] = ()


def thread_count(settings: Settings) -> int:
    """CPU threads for the model: the setting, or the cores that this process may use."""
    if settings.threads:
        return settings.threads
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS and Windows
        return max(1, os.cpu_count() or 1)


def resolve(name: str, settings: Settings) -> Choice:
    """Find out what ``name`` stands for, from the disk alone.

    Raises:
        ModelError: MODEL_UNKNOWN, or MODEL_BROKEN for a directory that is no model.
    """
    name = name.strip() or AUTO
    if name == LITE:
        return Choice(LITE, LITE, None, {})
    if name == AUTO:
        main = resolve(MAIN, settings)
        return main if main.directory is not None else Choice(LITE, LITE, None, {}, embedded_note(settings))
    known = find(name)
    if known is not None and not Path(name).is_dir():
        repos = {h: known.repo(h) for h in hub.HUBS if known.repo(h)}
        return Choice(known.name, known.family, hub.on_disk(repos, settings), repos)
    directory = Path(name).expanduser()
    if directory.is_dir():
        if checkpoint_file(directory) is None:
            raise ModelError("MODEL_BROKEN", name=name, reason="the directory holds no model.pt")
        return Choice(directory.resolve().name, "emotion2vec", directory.resolve(), {})
    if is_hub_id(name):
        repos = dict.fromkeys(hub.HUBS, name)
        return Choice(name, "emotion2vec", hub.on_disk(repos, settings), repos)
    raise ModelError("MODEL_UNKNOWN", name=name, known=", ".join((AUTO, *(m.name for m in known_models()))))


def embedded_note(settings: Settings) -> Note:
    """Why ``auto`` answers with the embedded model, and how to get the large one."""
    if settings.offline:
        return Note(
            "embedded_model",
            {
                "reason": "its weights are not on this machine and offline mode is set",
                "reason_zh": "本机没有其权重，且处于离线模式",
            },
        )
    return Note(
        "embedded_model",
        {
            "reason": f"its weights (1.9 GB) are not on this machine; {GET_LARGE}",
            "reason_zh": f"本机没有其权重（1.9 GB）；{GET_LARGE_ZH}",
        },
    )


def fetch(name: str, settings: Settings, progress: Report | None = None) -> Path:
    """The directory of a model's files, downloaded when they are not here.

    Raises:
        ModelError: MODEL_UNKNOWN, MODEL_OFFLINE.
        StoreError: DISK_FULL, CANNOT_SAVE.
    """
    choice = resolve(MAIN if name.strip() in ("", AUTO) else name, settings)
    if choice.family == LITE:
        raise ModelError(
            "MODEL_OFFLINE", name=LITE, hub="hub", reason="it is part of this package: there is nothing to get"
        )
    if choice.directory is not None:
        return choice.directory
    return hub.fetch(find(choice.name) or choice.name, settings, progress)


def model_path(name: str, settings: Settings) -> Path:
    """Where the files of a model are on this machine.

    Raises:
        ModelError: MODEL_UNKNOWN, MODEL_MISSING.
    """
    choice = resolve(MAIN if name.strip() in ("", AUTO) else name, settings)
    if choice.family == LITE:
        return Path(__file__).resolve().parent
    if choice.directory is None:
        raise ModelError("MODEL_MISSING", name=choice.name)
    return choice.directory


def load_model(name: str, settings: Settings, progress: Report | None = None) -> FrameModel:
    """Load what ``name`` stands for; a named model that is not here is downloaded first, ``auto`` never downloads.

    Args:
        name: ``auto``, ``lite``, a known name, a directory or a hub id.
        settings: engine, precision, device, threads and places.
        progress: called with a fraction and one line for people.

    Raises:
        ModelError: MODEL_UNKNOWN, MODEL_OFFLINE, MODEL_BROKEN, ENGINE_UNAVAILABLE.
    """
    report = progress or _silent
    choice = resolve(name, settings)
    calm_threads()
    _set_threads(thread_count(settings))
    if choice.family == LITE:
        report(0.9, LITE)
        return _load_lite(settings)
    directory = choice.directory
    if directory is None:
        directory = hub.fetch(find(choice.name) or choice.name, settings, lambda part, line: report(0.9 * part, line))
    report(0.92, choice.name)
    if settings.engine == "funasr":
        from emotion_app.models.reference import load_reference

        return load_reference(
            directory, choice.name, _source(choice, directory), thread_count(settings), settings.device
        )
    return _load_emotion2vec(choice, directory, settings, report)


def inspect(name: str, settings: Settings) -> Stored:
    """What is on disk of a model, for ``doctor``; reads no weights."""
    from emotion_app.models import precision, weights

    choice = resolve(name, settings)
    if choice.directory is None:
        return Stored(choice, None, 0.0, None)
    file = checkpoint_file(choice.directory)
    size_mb = file.stat().st_size / 1e6 if file else 0.0
    try:
        checkpoint = weights.find_converted(choice.directory, settings.models_dir, choice.name)
    except EmotionError:
        checkpoint = None
    checks = precision.read_checks(checkpoint.directory) if checkpoint else ()
    return Stored(choice, file, size_mb, checkpoint, tuple(check.line() for check in checks))


def _load_lite(settings: Settings) -> FrameModel:
    if settings.engine == "funasr":
        raise ModelError(
            "ENGINE_UNAVAILABLE",
            engine="funasr",
            reason="it has no embedded model; choose engine torch or a checkpoint",
        )
    if settings.engine == "onnx":
        from emotion_app.models.onnx import load_onnx_lite

        return load_onnx_lite(settings)
    from emotion_app.models.lite import load_lite

    return load_lite(thread_count(settings), precision=settings.precision)


def _load_emotion2vec(choice: Choice, directory: Path, settings: Settings, report: Report) -> FrameModel:
    from emotion_app.models import device, precision, weights
    from emotion_app.models.emotion2vec import Emotion2vec

    download = hub.read_download(directory)
    checkpoint = weights.convert(
        directory,
        settings.models_dir,
        choice.name,
        download.revision if download else None,
        download.hub if download else None,
        _source(choice, directory),
    )
    report(0.96, choice.name)
    if settings.engine == "onnx":
        from emotion_app.models.onnx import load_onnx

        return load_onnx(checkpoint, settings)
    where = device.pick(settings.device)
    decided = precision.decide(settings.precision, where, checkpoint)
    info = ModelInfo(
        name=choice.name,
        family="emotion2vec",
        source=checkpoint.record.source,
        engine="torch",
        precision=decided.precision,
        device=where,
        dim=checkpoint.config.dim,
        revision=checkpoint.record.revision,
        sha256=checkpoint.record.sha256,
        labels=weights.labels_of(checkpoint),
    )
    model = Emotion2vec(
        checkpoint.config, checkpoint.rows, weights.load_state(checkpoint, decided.precision), info, decided.notes
    )
    report(1.0, choice.name)
    return model


def _source(choice: Choice, directory: Path) -> str:
    download = hub.read_download(directory)
    return download.repo if download else choice.repos.get("modelscope", directory.name)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _silent(fraction: float, line: str) -> None:
    pass
