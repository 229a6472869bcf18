"""From a decoded source to a Waveform: the last checks, and the notes that a listener needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from emotion_app.audio.mixer import Sound
from emotion_app.errors import AudioError
from emotion_app.notes import Note
from emotion_app.types import LONG_S, MIN_SAMPLES, SAMPLE_RATE, SHORT_S, Floats

if TYPE_CHECKING:  # an array needs no PyAV
    from emotion_app.audio.containers import Decoded

SILENT_DBFS = -60.0  # RMS about the mean; a microphone in a quiet room is around -55
QUIET_DBFS = -45.0  # speech is recorded at -30 to -15
CLIPPED_SHARE = 1e-3  # normalised speech touches full scale in single samples; overdriven speech in whole wave tops
_BLOCK = 1 << 20


def finish(sound: Sound, float_source: bool) -> tuple[Note, ...]:
    """Check the length, scale floats beyond full scale (in place) and describe the sound.

    Raises:
        AudioError: TOO_SHORT.
    """
    n = len(sound.samples)
    if n < MIN_SAMPLES:
        raise AudioError("TOO_SHORT", duration_ms=n / SAMPLE_RATE * 1e3, limit_ms=MIN_SAMPLES / SAMPLE_RATE * 1e3)
    notes = []
    if n < SHORT_S * SAMPLE_RATE:
        notes.append(Note("too_short", {"duration_s": n / SAMPLE_RATE}))
    if n > LONG_S * SAMPLE_RATE:
        notes.append(Note("long", {"duration_s": n / SAMPLE_RATE}))
    if sound.non_finite:
        notes.append(Note("non_finite", {"count": sound.non_finite}))
    if float_source and sound.peak > 1:
        np.divide(sound.samples, np.float32(sound.peak), out=sound.samples)
        notes.append(Note("scaled", {"peak": sound.peak}))
    elif sound.clipped_share > CLIPPED_SHARE:
        notes.append(Note("clipped", {"share": sound.clipped_share}))
    level_db = level_dbfs(sound.samples)
    if level_db < SILENT_DBFS:
        notes.append(Note("silent"))
    elif level_db < QUIET_DBFS:
        notes.append(Note("quiet", {"level_db": level_db}))
    if sound.rate < SAMPLE_RATE:
        notes.append(Note("narrow_band", {"sample_rate": sound.rate}))
    return tuple(notes)


def channel_notes(channels: int, cancelled: bool) -> tuple[Note, ...]:
    """What was done with the channels."""
    if cancelled:
        return (Note("channels_cancel"),)
    return (Note("mixed_down", {"channels": channels}),) if channels > 1 else ()


def file_notes(decoded: Decoded) -> tuple[Note, ...]:
    """What only a file can have: damage, a picture, further tracks."""
    notes = []
    if decoded.damaged:
        notes.append(Note("truncated", {"decoded_s": len(decoded.sound.samples) / SAMPLE_RATE}))
    if decoded.video:
        notes.append(Note("video"))
    if decoded.tracks > 1:
        notes.append(Note("several_tracks", {"tracks": decoded.tracks}))
    return tuple(notes)


def level_dbfs(samples: Floats) -> float:
    """RMS about the mean in dB of full scale; -inf for a constant.

    >>> round(level_dbfs(np.sin(np.arange(16_000, dtype=np.float32))), 1)
    -3.0
    """
    total = square = 0.0
    for start in range(0, len(samples), _BLOCK):
        part = samples[start : start + _BLOCK].astype(np.float64)
        total += float(part.sum())
        square += float(part @ part)
    mean = total / max(1, len(samples))
    power = square / max(1, len(samples)) - mean * mean
    return 10 * math.log10(power) if power > 1e-18 else -math.inf
