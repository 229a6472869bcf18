"""``result.json``: how a Result is written as strict JSON and read back (described in docs/results.md).

One top-level key begins each line of the first level, small facts first, the long arrays last: the head of a 4 h
result can be read without its body.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np

from emotion_app.errors import StoreError
from emotion_app.labels import KEYS
from emotion_app.notes import Note, known_codes
from emotion_app.types import (
    HOP_S,
    Adjusted,
    Floats,
    ModelInfo,
    Origin,
    Prediction,
    Result,
    Segment,
    Timeline,
    Timing,
    Waveform,
)

SCHEMA_VERSION = 1
SCORE_DIGITS = 7  # of frame scores: nine of them still sum to 1 within 1e-6
_BODY = '\n  "segments": '  # the first key of the body
_ROWS = 4096


def head(result: Result) -> dict[str, Any]:
    """Everything but the arrays over time; the five keys known from FunASR's web demos come first."""
    origin, model, made = result.waveform.origin, result.model, result.timing
    return _strict({
        "emotion": result.prediction.label,
        "confidence": _score(result.prediction.confidence),
        "scores": {key: _score(score) for key, score in result.prediction.as_dict().items()},
        "granularity": result.granularity,
        "timestamp": result.created.strftime("%Y-%m-%d %H:%M:%S"),
        "schema_version": SCHEMA_VERSION,
        "created": result.created.isoformat(timespec="milliseconds"),
        "source": {"name": result.waveform.name, "container": origin.container, "codec": origin.codec,
                   "sample_rate": origin.sample_rate, "channels": origin.channels, "n_bytes": origin.n_bytes},
        "duration_s": result.waveform.duration_s,
        "model": {"name": model.name, "family": model.family, "source": model.source, "engine": model.engine,
                  "device": model.device, "dim": model.dim, "revision": model.revision, "sha256": model.sha256,
                  "licence": model.licence, "labels": list(model.labels), "embedded": model.embedded},
        "precision": model.precision,
        "timing": {"decode_s": made.decode_s, "load_s": made.load_s, "queue_s": made.queue_s,
                   "infer_s": made.infer_s, "total_s": made.total_s},
        "warnings": [{"code": note.code, "severity": note.severity, "text_en": note.text("en"),
                      "text_zh": note.text("zh"), "facts": note.facts} for note in result.notes],
        "shown": result.shown,
        "adjusted": _adjusted(result.adjusted),
        "embedding": _array(result.embedding, "embedding.npy"),
        "frame_embeddings": _array(result.frame_embeddings, "frame_embeddings.npy"),
    })


def result_to_dict(result: Result) -> dict[str, Any]:
    """The whole of ``result.json`` as plain data, for REST answers and ``--json``."""
    parts: dict[str, Any] = json.loads(b"".join(encode(result)))
    return parts


def encode(result: Result) -> Iterator[bytes]:
    """The whole of ``result.json`` as UTF-8 in pieces, in an order that never changes.

    Raises:
        StoreError: CANNOT_SAVE when a score is not a number.
    """
    lines = [f'  "{key}": {_indented(value)}' for key, value in head(result).items()]
    yield ("{\n" + ",\n".join(lines) + ",").encode()
    rows = ",\n    ".join(_compact(_segment(segment)) for segment in result.segments)
    yield f"{_BODY}[{rows}],\n".encode()
    yield b'  "timeline": '
    yield from _timeline(result.timeline)
    yield b',\n  "frames": '
    yield from _timeline(result.frames)
    judged = result.adjusted
    rows = ",\n    ".join(_compact(_segment(segment)) for segment in judged.segments) if judged else ""
    yield f',\n  "adjusted_segments": [{rows}],\n  "adjusted_timeline": '.encode()
    yield from _timeline(judged.timeline if judged else None)
    yield b',\n  "adjusted_frames": '
    yield from _timeline(judged.frames if judged else None)
    yield b"\n}\n"


def decode_head(text: str) -> dict[str, Any]:
    """The head out of the first characters of a file, or out of a whole small one written by another program.

    Raises:
        ValueError: no JSON object begins here.
    """
    at = text.find(_BODY)
    found = json.loads(text[:at].rstrip().rstrip(",") + "}" if at >= 0 else text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def decode(text: str, samples: Floats, embedding: Floats | None, frame_embeddings: Floats | None) -> Result:
    """The Result that a folder was written from.

    Args:
        text: contents of ``result.json``.
        samples: contents of ``processed_audio.wav``.
        embedding: contents of ``embedding.npy``, if there.
        frame_embeddings: contents of ``frame_embeddings.npy``, if there.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the text is not of this form.
    """
    data = json.loads(text)
    if data["schema_version"] > SCHEMA_VERSION:
        raise ValueError(f"written by a newer version (schema {data['schema_version']})")
    model = {key: value for key, value in data["model"].items() if key != "embedded"}
    timing = {key: value for key, value in data["timing"].items() if key != "total_s"}
    notes = tuple(_note(warning) for warning in data["warnings"] if warning["code"] in known_codes())
    source = dict(data["source"])
    return Result(
        prediction=_prediction(data["scores"]),
        granularity=data["granularity"],
        waveform=Waveform(samples, source.pop("name"), notes, Origin(**source)),
        model=ModelInfo(**{**model, "precision": data["precision"], "labels": tuple(model["labels"])}),
        timing=Timing(**timing),
        created=datetime.fromisoformat(data["created"]),
        frames=_read_timeline(data["frames"]),
        timeline=_read_timeline(data["timeline"]),
        segments=_read_segments(data["segments"]),
        embedding=embedding,
        frame_embeddings=frame_embeddings,
        notes=notes,
        adjusted=_read_adjusted(data),
    )


def _score(value: float) -> float:
    return round(float(value), 9)


def _segment(segment: Segment) -> dict[str, Any]:
    said = segment.prediction
    return _strict({
        "start_s": segment.start_s, "end_s": segment.end_s, "emotion": said.label,
        "confidence": _score(said.confidence), "speaker": segment.speaker,
        "scores": {key: _score(score) for key, score in said.as_dict().items()},
    })


def _read_segments(data: list[dict[str, Any]]) -> tuple[Segment, ...]:
    return tuple(Segment(s["start_s"], s["end_s"], _prediction(s["scores"]), s["speaker"]) for s in data)


def _adjusted(adjusted: Adjusted | None) -> dict[str, Any] | None:
    if adjusted is None:
        return None
    said = adjusted.prediction
    return {
        "emotion": said.label, "confidence": _score(said.confidence),
        "scores": {key: _score(score) for key, score in said.as_dict().items()},
        "baseline": adjusted.baseline, "count": adjusted.count, "neutral_share": adjusted.neutral_share,
    }


def _read_adjusted(data: dict[str, Any]) -> Adjusted | None:
    found = data.get("adjusted")  # missing in results of the first versions
    if found is None:
        return None
    return Adjusted(
        _prediction(found["scores"]), found["baseline"], found["count"], found["neutral_share"],
        _read_timeline(data.get("adjusted_frames")), _read_timeline(data.get("adjusted_timeline")),
        _read_segments(data.get("adjusted_segments", [])),
    )


def _array(array: Floats | None, file: str) -> dict[str, Any] | None:
    return None if array is None else {"file": file, "shape": list(array.shape), "dtype": str(array.dtype)}


def _timeline(timeline: Timeline | None) -> Iterator[bytes]:
    if timeline is None:
        yield b"null"
        return
    if not np.isfinite(timeline.scores).all():
        raise StoreError("CANNOT_SAVE", reason="a score is not a number")
    facts = {"window_s": timeline.window_s, "start_s": timeline.start_s, "hop_s": timeline.hop_s}
    yield (_compact(facts)[:-1] + f', "labels": {_compact(timeline.labels)}, "scores": [').encode()
    row = "[" + ", ".join([f"%.{SCORE_DIGITS}f"] * len(KEYS)) + "]"
    for start in range(0, len(timeline.scores), _ROWS):
        block = timeline.scores[start:start + _ROWS]
        text = ",\n    ".join([row] * len(block)) % tuple(block.ravel().tolist())
        yield ("" if start == 0 else ",").encode() + b"\n    " + text.encode()
    yield b"]}"


def _read_timeline(data: dict[str, Any] | None) -> Timeline | None:
    if data is None:
        return None
    scores = np.asarray(data["scores"], np.float32).reshape(-1, len(KEYS))
    return Timeline(scores, data["start_s"], data.get("hop_s", HOP_S), data["window_s"])


def _note(warning: dict[str, Any]) -> Note:
    """A fact that was not finite (the level of silence) was written as null."""
    return Note(warning["code"], {key: math.nan if fact is None else fact for key, fact in warning["facts"].items()})


def _prediction(scores: dict[str, float]) -> Prediction:
    values = np.array([scores[key] for key in KEYS], np.float64)
    return Prediction(values / values.sum())


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity, and UTF-8 no lone surrogates (file names have them): null and ``?`` instead."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).replace("\n", "\n  ")
