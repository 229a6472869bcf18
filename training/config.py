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
from training.teacher import Distil
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
        joined: share of voices that are followed by another in fine-tuning, see ``Stream``.
    """

    train: tuple[str, ...] = ("train",)
    leave_out: tuple[str, ...] = ()
    share: dict[str, float] = field(default_factory=dict)
    renditions: int = 5
    disturbed: float = 0.7
    joined: float = 0.0


@dataclass(frozen=True)
class Heads:
    """How the heads are solved.

    Attributes:
        batches: of disturbed clips for head A.
        narrow_batches: of disturbed clips, to find the units of a wider encoder that say least.
        batch: clips in one.
        l2: penalty on head A's weights.
        again: share in head A of one that is solved anew on the fine-tuned encoder; the rest is the fine-tuned head.
        again_l2: penalty on its weights.
        reference_l2: the same for head B.
        reference_rows: balanced draws that head B is solved on.
        offsets: added to head A's logits of a class: its share among people's clips against that among ours.
        reference_offsets: the same for head B.
        per_speaker: undisturbed clips of each speaker for head B, at most.
        per_corpus: and of each corpus.
    """

    batches: int = 400
    narrow_batches: int = 20
    batch: int = 32
    l2: float = 1e-3
    again: float = 0.0
    again_l2: float = 3e-2
    reference_l2: float = 1e-2
    reference_rows: int = 10000
    offsets: dict[str, float] = field(default_factory=dict)
    reference_offsets: dict[str, float] = field(default_factory=dict)
    per_speaker: int = 150
    per_corpus: int = 2000


@dataclass(frozen=True)
class Evaluate:
    """What is reported.

    Attributes:
        splits: tested on.
        degrade: corpora also tried with bad sound.
        noise: corpus whose test clips serve as recorded noise.
        calibrate: corpus and split that the temperatures are fitted on: one that was never trained on.
        least_temperatures: alone and with a baseline, a fit below these is not believed.
    """

    splits: tuple[str, ...] = ("test",)
    degrade: tuple[str, ...] = ()
    noise: str = ""
    calibrate: tuple[str, str] = ("", "")
    least_temperatures: tuple[float, float] = (0.3, 0.3)


@dataclass(frozen=True)
class Config:
    """A whole run; sections of the file have the names of the fields.

    Attributes:
        seed: of the clips' disturbed copies and of the start.
        seeds: of the fine-tuning runs whose weights are averaged.
        folds: corpora that ``folds`` leaves out, one at a time.
        encoder: what to start from: ``whisper-base`` (see ``training.encoder``) or a ``lite.safetensors``.
        interpolate: how far to go from the start to the fine-tuned weights.
    """

    seed: int = 0
    seeds: tuple[int, ...] = (0,)
    folds: tuple[str, ...] = ()
    encoder: str = "whisper-base"
    batch: int = 32
    interpolate: float = 0.6
    data: Data = field(default_factory=Data)
    wave: Rendition = field(default_factory=Rendition)
    augment: Augment = field(default_factory=Augment)
    model: Shape = field(default_factory=Shape)
    heads: Heads = field(default_factory=Heads)
    finetune: Finetune = field(default_factory=Finetune)
    distil: Distil = field(default_factory=Distil)
    evaluate: Evaluate = field(default_factory=Evaluate)
    export: Facts = field(default_factory=lambda: Facts("0", "unknown", (), 0))


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
