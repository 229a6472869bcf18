"""Settings of a training run, from a TOML file: every number that is not code."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from emotion_app.errors import ConfigError
from emotion_app.models.lite_network import Shape
from training.augment import Augment
from training.export import Facts
from training.finetune import Finetune
from training.waves import Rendition

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """Which clips.

    Attributes:
        train: splits that are trained on.
        leave_out: corpora that are not trained on at all (to choose settings by transfer).
        share: weight of each corpus in a batch.
        renditions: disturbed copies of each clip.
        disturbed: share of examples taken from them.
    """

    train: tuple[str, ...] = ("train",)
    leave_out: tuple[str, ...] = ()
    share: dict[str, float] = field(default_factory=dict)
    renditions: int = 5
    disturbed: float = 0.7


@dataclass(frozen=True)
class Heads:
    """How the heads are solved: batches of disturbed clips, weight penalty, random references per clip."""

    batches: int = 400
    batch: int = 32
    l2: float = 1e-3
    reference_l2: float = 1e-3


@dataclass(frozen=True)
class Evaluate:
    """What is reported.

    Attributes:
        splits: tested on.
        degrade: corpora also tried with bad sound.
        noise: corpus whose test clips serve as recorded noise.
        calibrate: corpus and split that the temperatures are fitted on: one that was never trained on.
    """

    splits: tuple[str, ...] = ("test",)
    degrade: tuple[str, ...] = ()
    noise: str = ""
    calibrate: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Config:
    """A whole run; sections of the file have the names of the fields."""

    seed: int = 0
    batch: int = 32
    interpolate: float = 0.6
    data: Data = Data()
    wave: Rendition = Rendition()
    augment: Augment = Augment()
    model: Shape = Shape()
    heads: Heads = Heads()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    export: Facts = Facts("0", "unknown", (), 0)


def read(path: Path) -> Config:
    """Config of a file; what the file does not name keeps its default.

    Raises:
        ConfigError: BAD_SETTING for a name that does not exist or a file that cannot be read.
    """
    try:
        return _fill(Config(), tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ConfigError("BAD_SETTING", reason=f"{path}: {error}") from error


def _fill(default: T, values: dict[str, Any]) -> T:
    changed = {}
    for name, value in values.items():
        if name not in {f.name for f in dataclasses.fields(default)}:  # type: ignore[arg-type]
            raise TypeError(f"no setting named {name} in {type(default).__name__}")
        old = getattr(default, name)
        if dataclasses.is_dataclass(old):
            value = _fill(old, value)
        elif isinstance(value, list):
            value = tuple(value)
        changed[name] = value
    return dataclasses.replace(default, **changed)  # type: ignore[type-var]
