"""Where baselines live: a JSON file for each name, one for each model's fitted rule; written aside, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from emotion_app.baseline import Baseline, checked_name
from emotion_app.errors import RequestError, StoreError
from emotion_app.types import BaselineRule, ModelInfo

SUFFIX = ".json"
RULES = "baseline-rules"  # folder in Settings.models_dir
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, RequestError)


class BaselineStore:
    """Named baselines in a folder; any number of processes may share it.

    Args:
        folder: made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).expanduser()

    def names(self) -> tuple[str, ...]:
        """All names, in order; files that are not ours are passed over."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(RequestError):
                found.append(checked_name(path.name.removesuffix(SUFFIX)))
        return tuple(sorted(found))

    def open(self, name: str) -> Baseline:
        """Read a baseline.

        Raises:
            RequestError: BAD_NAME, NO_BASELINE.
            StoreError: BASELINE_BROKEN.
        """
        path = self._path(name)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return Baseline(
                name=checked_name(name),
                recent=np.array(data["recent"], np.float32).reshape(-1, len(data["mean"])),
                neutral_share=float(data["neutral_share"]),
                model=str(data["model"]),
                sha256=data["sha256"],
                created=datetime.fromisoformat(data["created"]),
                cap=int(data["cap"]),
            )
        except FileNotFoundError:
            raise RequestError("NO_BASELINE", name=name, known=", ".join(self.names()) or "-") from None
        except _UNREADABLE as error:
            raise StoreError("BASELINE_BROKEN", name=name, reason=str(error)[:200]) from error

    def save(self, baseline: Baseline, *, replace: bool = False) -> Path:
        """Write a baseline.

        Args:
            baseline: its name is the file's name.
            replace: over one of the same name.

        Raises:
            RequestError: BAD_NAME, BASELINE_EXISTS.
            StoreError: CANNOT_SAVE.
        """
        path = self._path(baseline.name)
        if path.exists() and not replace:
            raise RequestError("BASELINE_EXISTS", name=baseline.name)
        _write(path, {
            "name": baseline.name, "count": baseline.count, "neutral_share": baseline.neutral_share,
            "model": baseline.model, "sha256": baseline.sha256, "created": baseline.created.isoformat(),
            "cap": baseline.cap, "mean": baseline.mean.tolist(), "recent": baseline.recent.tolist(),
        })
        return path

    def delete(self, name: str) -> None:
        """Take a baseline away.

        Raises:
            RequestError: BAD_NAME, NO_BASELINE.
        """
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise RequestError("NO_BASELINE", name=name, known=", ".join(self.names()) or "-") from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{checked_name(name)}{SUFFIX}"


def rule_path(models_dir: Path, model: ModelInfo) -> Path:
    """Where the fitted rule of a model is: beside its converted files, by name and weights."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.name).strip(".-")[:60]
    return Path(models_dir).expanduser() / RULES / f"{name}-{(model.sha256 or 'unhashed')[:16]}{SUFFIX}"


def save_rule(rule: BaselineRule, model: ModelInfo, models_dir: Path) -> Path:
    """Keep a fitted rule for a model; an older one is replaced.

    Raises:
        StoreError: CANNOT_SAVE.
    """
    path = rule_path(models_dir, model)
    arrays = {"g": rule.g.tolist(), "d": rule.d.tolist(), "b": rule.b.tolist()}
    numbers = {"n0": rule.n0, "cap": rule.cap, "min_clips": rule.min_clips, "enrolment_share": rule.enrolment_share,
               "mixed_share": rule.mixed_share, "source": rule.source}
    _write(path, {"model": model.name, "sha256": model.sha256, **arrays, **numbers})
    return path


def read_rule(model: ModelInfo, models_dir: Path) -> BaselineRule | None:
    """The rule that was fitted for exactly these weights, or None.

    Raises:
        StoreError: BASELINE_BROKEN.
    """
    path = rule_path(models_dir, model)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if (data["model"], data["sha256"]) != (model.name, model.sha256):
            return None
        g, d, b = (np.array(data[key], np.float32) for key in ("g", "d", "b"))
        return BaselineRule(
            g, d, b, float(data["n0"]), int(data["cap"]), int(data["min_clips"]), float(data["enrolment_share"]),
            float(data["mixed_share"]), str(data["source"]),
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        raise StoreError("BASELINE_BROKEN", name=path.name, reason=str(error)[:200]) from error


def _write(path: Path, data: Mapping[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    aside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        if aside is not None:
            with contextlib.suppress(OSError):
                os.unlink(aside)
        raise StoreError("CANNOT_SAVE", reason=str(error)) from error
