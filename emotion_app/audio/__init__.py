"""Sound in: any file, bytes, file object or array -> ``Waveform`` (16 kHz, mono, float32, finite), or an AudioError.

>>> from emotion_app.settings import Limits
>>> wave = load((44_100, np.zeros((44_100, 2), np.int16)), limits=Limits())
>>> wave.samples.shape, [note.code for note in wave.notes]
((16000,), ['silent', 'mixed_down'])
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np
from numpy.typing import NDArray

from emotion_app.audio.caps import Caps
from emotion_app.audio.decoder import Decoder
from emotion_app.audio.sources import Reader, display_name, open_source
from emotion_app.errors import AudioError
from emotion_app.types import SAMPLE_RATE, Origin, Waveform

if TYPE_CHECKING:
    from emotion_app.settings import Limits

__all__ = ["Decoder", "Source", "decode_reader", "display_name", "load", "write_wav"]

# ``tuple[int, array]`` is what Gradio's Audio gives: (sampling rate, samples).
Source = Union[str, Path, bytes, bytearray, memoryview, BinaryIO, tuple[int, NDArray[Any]], NDArray[Any]]  # noqa: UP007
_BLOCK = 1 << 20


def load(
    source: Source,
    *,
    limits: Limits,
    name: str | None = None,
    max_s: float | None = None,
    sample_rate: int | None = None,
) -> Waveform:
    """Read sound in this process. For files from strangers use ``Decoder``.

    Args:
        source: path of a regular file; bytes; a binary file object (read from its start, left open); an array (n,),
            (n, channels) or (channels, n); or (rate, array).
        limits: bounds on rate, channels and length; the bytes of an unseekable file object.
        name: display name; the file's own by default.
        max_s: longest sound in seconds, ``limits.batch_clip_s`` by default; longer is refused, never cut.
        sample_rate: rate of a bare array in Hz, 16000 by default; files say their own.

    Raises:
        AudioError: EMPTY, UNDECODABLE, NO_AUDIO, BAD_FORMAT, NOT_FINITE, TOO_SHORT, TOO_LONG, TOO_LARGE, BAD_ARRAY,
            NO_SUCH_FILE, NOT_A_FILE.
        AccessError: FORBIDDEN_PATH.
    """
    caps = Caps.of(limits, max_s)
    array, rate = _as_array(source, sample_rate)
    if array is not None:
        return _from_array(array, rate, caps, name)
    if sample_rate is not None:
        raise AudioError("BAD_ARRAY", reason="sample_rate goes with a bare array; files and pairs say their own")
    with open_source(source, limits.upload_mb) as reader:  # type: ignore[arg-type]  # arrays are gone by now
        return decode_reader(reader, caps, name or _own_name(source))


def decode_reader(reader: Reader, caps: Caps, name: str) -> Waveform:
    """The file behind ``reader``; see ``load``."""
    from emotion_app.audio import quality  # PyAV is loaded with the first file
    from emotion_app.audio.containers import decode

    decoded = decode(reader, caps)
    notes = quality.finish(decoded.sound, decoded.float_source)
    notes += quality.channel_notes(decoded.sound.channels, decoded.one_channel) + quality.file_notes(decoded)
    origin = Origin(decoded.container, decoded.codec, decoded.sound.rate, decoded.sound.channels, reader.n_bytes)
    return Waveform(decoded.sound.samples, display_name(name, caps.name_bytes), notes, origin)


def write_wav(path: str | Path, waveform: Waveform) -> None:
    """Write 16 kHz mono 16-bit PCM; 16-bit sound at 16 kHz comes back bit for bit, beyond full scale is clipped."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for start in range(0, len(waveform.samples), _BLOCK):
            part = np.rint(waveform.samples[start : start + _BLOCK] * np.float32(32_768))
            file.writeframes(np.clip(part, -32_768, 32_767).astype("<i2").tobytes())


def _as_array(source: Source, sample_rate: int | None) -> tuple[NDArray[Any] | None, float]:
    if isinstance(source, np.ndarray):
        return source, SAMPLE_RATE if sample_rate is None else sample_rate
    if not isinstance(source, tuple):
        return None, 0
    if len(source) != 2 or not isinstance(source[1], np.ndarray) or sample_rate is not None:
        raise AudioError("BAD_ARRAY", reason="a pair must be (sampling rate, numpy array)")
    return source[1], source[0]


def _from_array(array: NDArray[Any], rate: float, caps: Caps, name: str | None) -> Waveform:
    from emotion_app.audio import quality
    from emotion_app.audio.arrays import from_array, is_float

    sound, cancelled = from_array(array, rate, caps)
    notes = quality.finish(sound, is_float(array.dtype)) + quality.channel_notes(sound.channels, cancelled)
    origin = Origin("array", str(array.dtype), sound.rate, sound.channels, array.nbytes)
    return Waveform(sound.samples, display_name(name or "audio", caps.name_bytes), notes, origin)


def _own_name(source: object) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    own = getattr(source, "name", None)
    return own if isinstance(own, str) else "audio"
