"""A small WAV that a client sends as one message: header off, 16-bit mono PCM out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emotion_app.errors import AudioError

_PCM, _EXTENSIBLE = 1, 0xFFFE


@dataclass(frozen=True)
class Chunk:
    """PCM bytes and the rate that their header declares, or None for bare PCM."""

    pcm: bytes
    rate: int | None


def unwrap(data: bytes) -> Chunk:
    """The sound of a message: a WAV if it begins like one, bare PCM otherwise.

    Sizes in the header are not believed: browsers and pipes write 0 or 2**32 - 1.

    Raises:
        AudioError: UNDECODABLE, BAD_FORMAT.

    >>> unwrap(b"abcd")
    Chunk(pcm=b'abcd', rate=None)
    """
    if not (data[:4] == b"RIFF" and data[8:12] == b"WAVE"):
        return Chunk(data, None)
    rate = channels = bits = 0
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt " and len(body) >= 16:
            code, channels, rate, _, _, bits = (
                int(v)
                for v in np.frombuffer(
                    body[:16],
                    np.dtype(
                        [
                            ("code", "<u2"),
                            ("channels", "<u2"),
                            ("rate", "<u4"),
                            ("bytes", "<u4"),
                            ("block", "<u2"),
                            ("bits", "<u2"),
                        ]
                    ),
                )[0]
            )
            if code not in (_PCM, _EXTENSIBLE) or bits != 16:
                raise AudioError("BAD_FORMAT", what="bits", value=bits, low=16, high=16)
            if channels not in (1, 2):
                raise AudioError("BAD_FORMAT", what="channels", value=channels, low=1, high=2)
        elif name == b"data":
            if not rate:
                break
            return Chunk(_mono(body, channels), rate)
        at += 8 + size + size % 2
    raise AudioError("UNDECODABLE", container="wav", codec=None, reason="there is no sound in it")


def _mono(body: bytes, channels: int) -> bytes:
    whole = len(body) - len(body) % (2 * channels)
    if channels == 1:
        return body[:whole]
    both = np.frombuffer(body[:whole], "<i2").reshape(-1, 2)
    return np.rint(both.mean(axis=1)).astype("<i2").tobytes()
