"""Labelled clips from a ``manifest.csv``: the only thing that the training pipeline wants to know about data."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from emotion_app.errors import RequestError
from emotion_app.labels import index_of

UNLABELLED = -1  # class of a clip whose ``emotion`` is empty: only a teacher can use it
_NEEDED = ("path", "corpus", "speaker", "emotion", "split")


@dataclass(frozen=True)
class Clip:
    """One row: where the sound is, whose it is, what it says.

    Attributes:
        path: file with the sound.
        corpus: name of the collection; channels, languages and label sets differ between them.
        speaker: unique within the corpus.
        emotion: index in ``labels.EMOTIONS``, or UNLABELLED.
        split: ``train``, ``dev``, ``test`` or another word (then only evaluated on).
        seconds: length, 0 when the manifest does not tell.
    """

    path: Path
    corpus: str
    speaker: str
    emotion: int
    split: str
    seconds: float = 0.0


def read(path: Path) -> list[Clip]:
    """Clips of a manifest with the columns path, corpus, speaker, emotion, split (and seconds when known).

    Relative paths start at the manifest's folder; ``emotion`` is any name that ``labels.index_of`` knows.

    Raises:
        RequestError: NO_SUCH_FILE, or BAD_OPTION naming the column or the emotion.
    """
    if not path.is_file():
        raise RequestError("NO_SUCH_FILE", name=str(path))
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            raise RequestError(
                "BAD_OPTION", option="manifest columns", value=str(rows.fieldnames), choices=", ".join(_NEEDED)
            )
        return [_clip(row, path.parent) for row in rows]


def _clip(row: dict[str, str], folder: Path) -> Clip:
    emotion = index_of(row["emotion"]) if row["emotion"] else UNLABELLED
    if emotion is None:
        raise RequestError(
            "BAD_OPTION", option=f"emotion of {row['path']}", value=row["emotion"], choices="labels.EMOTIONS"
        )
    return Clip(
        folder / row["path"],
        row["corpus"],
        f"{row['corpus']}/{row['speaker']}",
        emotion,
        row["split"],
        float(row.get("seconds") or 0),
    )
