"""A Result as files other than JSON: sound, arrays, table. Each comes in pieces, so that 4 h need little memory."""

from __future__ import annotations

import csv
import io
import struct
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from emotion_app.labels import KEYS
from emotion_app.types import SAMPLE_RATE, Floats, Timeline

BOM = b"\xef\xbb\xbf"  # tells Excel that a CSV is UTF-8
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_BLOCK = 1 << 16


def wav_pieces(samples: Floats) -> Iterator[bytes]:
    """16 kHz mono 16-bit PCM WAV; full scale is 32768, so sound decoded from 16 bits comes back bit for bit."""
    n_bytes = 2 * len(samples)
    yield struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + n_bytes, b"WAVEfmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE,
                      2, 16, b"data", n_bytes)
    for start in range(0, len(samples), _BLOCK):
        block = np.rint(samples[start:start + _BLOCK].astype(np.float64) * 32768)
        yield np.clip(block, -32768, 32767).astype("<i2").tobytes()


def read_wav(path: Path) -> Floats:
    """The samples that ``wav_pieces`` wrote, (n,) float32.

    Raises:
        ValueError: another format of sound.
        wave.Error, EOFError, OSError: not a WAV, or not readable.
    """
    with wave.open(str(path), "rb") as sound:
        if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (SAMPLE_RATE, 1, 2):
            raise ValueError(f"{path.name} is not 16 kHz mono 16-bit")
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32)
    samples /= 32768
    return samples


def npy_pieces(array: Floats) -> Iterator[bytes]:
    """A NumPy ``.npy`` file."""
    array = np.ascontiguousarray(array)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    yield head.getvalue()
    flat = memoryview(array.reshape(-1).view(np.uint8))
    for start in range(0, len(flat), 1 << 22):
        yield bytes(flat[start:start + (1 << 22)])


def csv_line(cells: Iterable[object]) -> str:
    """One line of a CSV. Text that a spreadsheet would run as a formula gets an apostrophe in front.

    >>> csv_line(["=1+1", "a,b", -0.5])
    '\\'=1+1,"a,b",-0.5\\r\\n'
    """
    text = io.StringIO()
    csv.writer(text).writerow(["'" + c if isinstance(c, str) and c.startswith(_FORMULA) else c for c in cells])
    return text.getvalue()


def frames_csv_pieces(frames: Timeline, smoothed: Timeline) -> Iterator[bytes]:
    """A row for each 20 ms: times, raw label and nine scores, smoothed label and nine scores. UTF-8 with BOM.

    Args:
        frames: raw scores (T, 9).
        smoothed: the same rows, smoothed.
    """
    columns = ["start_s", "end_s", "label", *KEYS, "smoothed_label", *(f"smoothed_{key}" for key in KEYS)]
    yield BOM + csv_line(columns).encode()
    row = "%.2f,%.2f,%s" + ",%.6f" * len(KEYS) + ",%s" + ",%.6f" * len(KEYS) + "\r\n"
    n = min(len(frames.scores), len(smoothed.scores))
    for start in range(0, n, 4096):
        stop = min(start + 4096, n)
        raw, soft = frames.scores[start:stop], smoothed.scores[start:stop]
        best, soft_best = raw.argmax(axis=1).tolist(), soft.argmax(axis=1).tolist()
        begins = (frames.start_s + np.arange(start, stop + 1) * frames.hop_s).tolist()
        yield "".join(
            row % (begins[i], begins[i + 1], KEYS[best[i]], *r, KEYS[soft_best[i]], *s)
            for i, (r, s) in enumerate(zip(raw.tolist(), soft.tolist(), strict=True))
        ).encode()
