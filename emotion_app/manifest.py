"""Lists of clips: ``manifest.csv`` with a header, JSON lines, or EmoBox's metadata; with or without labels.

Columns by any of their usual names (``_NAMES``). An emotion that is not one of ours is counted and reported, never
guessed: only plain synonyms of the nine words are understood, everything else needs a map.

EmoBox (github.com/emo-box/EmoBox, ``data/<corpus>/fold_1/<corpus>_test_fold_1.jsonl``): ``key, dataset, wav, emo,
length, channel``, sometimes ``start_time, end_time``; short labels are explained by the corpus' ``label_map.json``.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_app.errors import RequestError
from emotion_app.labels import INDEX, index_of

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
MAX_CLIPS = 1_000_000
CLIMB = 4  # folders above the manifest in which its clips are looked for (EmoBox: three)
_NAMES = {
    "path": ("path", "wav", "file", "audio", "audio_path", "filename"),
    "emotion": ("emotion", "emo", "label"),
    "speaker": ("speaker", "speaker_id", "spk"),
    "corpus": ("corpus", "dataset"),
    "language": ("language", "lang"),
    "split": ("split",),
    "start_s": ("start_s", "start_time"),
    "end_s": ("end_s", "end_time"),
}
_SYNONYMS = {
    "angry": "anger ang", "disgusted": "disgust dis", "fearful": "fear fea", "happy": "happiness joy hap",
    "neutral": "neutrality neu", "sad": "sadness", "surprised": "surprise sur",
}  # fmt: skip
_KNOWN = {word: INDEX[key] for key, words in _SYNONYMS.items() for word in words.split()}


@dataclass(frozen=True)
class Item:
    """One clip of a list.

    Attributes:
        path: file with the sound.
        name: the path as the list has it; with ``#t=start,end`` for a part of a file.
        corpus: collection; the list's own name when it does not say.
        speaker: ``corpus/speaker``, or None when the list does not say.
        emotion: index in ``labels.EMOTIONS``, or None without a label that is one of ours.
        label: the label as the list has it.
        language: as the list has it, or empty.
        split: as the list has it, or empty.
        start_s, end_s: part of the file, or None for all of it.
    """

    path: Path
    name: str
    corpus: str = ""
    speaker: str | None = None
    emotion: int | None = None
    label: str = ""
    language: str = ""
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Manifest:
    """A list that was read.

    Attributes:
        path: of the list.
        items: its clips, in their order.
        foreign: labels that are not ours, with the number of clips of each.
        has_speakers: whether any clip says who speaks.
    """

    path: Path
    items: tuple[Item, ...]
    foreign: Mapping[str, int] = field(default_factory=dict)
    has_speakers: bool = False


def emotion_of(label: str, label_map: Mapping[str, str] | None = None) -> int | None:
    """Index of the emotion that a corpus means by ``label``, or None.

    >>> emotion_of("Anger"), emotion_of("calm"), emotion_of("p", {"p": "Fear"}), emotion_of("calm", {"calm": "neutral"})
    (0, None, 2, 4)
    """
    word = (label_map or {}).get(label, label).strip()
    found = index_of(word)
    return _KNOWN.get(word.lower()) if found is None else found


def read_manifest(path: Path, *, root: Path | None = None, label_map: Mapping[str, str] | None = None) -> Manifest:
    """Read a list.

    Args:
        path: ``.csv`` or ``.tsv`` with a header, ``.jsonl``, or EmoBox's ``.json`` (an object by key).
        root: where relative paths begin; default: the list's folder; for JSON the nearest folder at or above it (four
            at most) that holds the first, the middle and the last clip, as EmoBox's paths begin at its top.
        label_map: names of ours by labels of the list, before anything else is tried.

    Raises:
        RequestError: NO_SUCH_FILE, BAD_MANIFEST with the line.
    """
    if not path.is_file():
        raise RequestError("NO_SUCH_FILE", name=str(path))
    rows = list(_rows(path))
    if not rows:
        raise RequestError("BAD_MANIFEST", name=path.name, reason="no clip in it")
    words = {**_label_map_beside(path), **(label_map or {})}
    base = root or _root(path, [str(_get(rows[i], "path") or "") for i in (0, len(rows) // 2, -1)])
    items = tuple(_item(row, base, path, words, number) for number, row in enumerate(rows, start=1))
    foreign = Counter(item.label for item in items if item.emotion is None and item.label)
    return Manifest(path, items, dict(foreign), any(item.speaker for item in items))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    count = 0
    try:
        for row in _parsed(path):
            count += 1
            if count > MAX_CLIPS:
                raise RequestError("BAD_MANIFEST", name=path.name, reason=f"more than {MAX_CLIPS} clips")
            if not isinstance(row, Mapping):
                raise RequestError("BAD_MANIFEST", name=path.name, reason=f"entry {count} is not an object")
            yield row
    except (ValueError, csv.Error, RecursionError, OSError) as error:
        raise RequestError("BAD_MANIFEST", name=path.name, reason=f"after entry {count}: {error}"[:300]) from error


def _parsed(path: Path) -> Iterator[Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
        elif path.suffix == ".json":
            data = json.load(file)
            yield from data.values() if isinstance(data, Mapping) else data
        elif path.suffix in (".csv", ".tsv"):
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        else:
            raise RequestError("BAD_MANIFEST", name=path.name, reason=f"not one of {', '.join(SUFFIXES)}")


def _get(row: Mapping[str, Any], what: str) -> Any:
    return next((row[name] for name in _NAMES[what] if row.get(name) not in (None, "")), None)


def _item(row: Mapping[str, Any], base: Path, path: Path, words: Mapping[str, str], number: int) -> Item:
    place, label, speaker = (_get(row, what) for what in ("path", "emotion", "speaker"))
    if place is None:
        reason = f"entry {number} has none of {', '.join(_NAMES['path'])}"
        raise RequestError("BAD_MANIFEST", name=path.name, reason=reason)
    corpus = str(_get(row, "corpus") or path.stem)
    start_s, end_s = (_seconds(row, what, path, number) for what in ("start_s", "end_s"))
    part = "" if start_s is None and end_s is None else f"#t={start_s or 0:g},{'' if end_s is None else f'{end_s:g}'}"
    return Item(
        path=base / str(place),
        name=f"{place}{part}",
        corpus=corpus,
        speaker=None if speaker is None else f"{corpus}/{speaker}",
        emotion=None if label is None else emotion_of(str(label), words),
        label="" if label is None else str(label),
        language=str(_get(row, "language") or ""),
        split=str(_get(row, "split") or ""),
        start_s=start_s,
        end_s=end_s,
    )


def _seconds(row: Mapping[str, Any], what: str, path: Path, number: int) -> float | None:
    value = _get(row, what)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        reason = f"entry {number}: {value!r} is not a time"
        raise RequestError("BAD_MANIFEST", name=path.name, reason=reason) from None


def _root(path: Path, some: list[str]) -> Path:
    folder = path.parent
    above = [folder, *folder.resolve().parents[:CLIMB]] if path.suffix in (".json", ".jsonl") else [folder]
    return next((base for base in above if all((base / name).is_file() for name in some)), folder)


def _label_map_beside(path: Path) -> dict[str, str]:
    """EmoBox keeps it in the corpus' folder, above the folds."""
    for folder in (path.parent, path.parent.parent):
        found = folder / "label_map.json"
        if path.suffix in (".json", ".jsonl") and found.is_file():
            try:
                data = json.loads(found.read_text(encoding="utf-8"))
                return {str(key): str(value) for key, value in data.items()}
            except (ValueError, AttributeError, OSError) as error:
                raise RequestError("BAD_MANIFEST", name=found.name, reason=str(error)[:200]) from error
    return {}
