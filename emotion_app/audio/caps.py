"""What sound is accepted: the part of ``Limits`` that the decoder needs, in a form that a bare process can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the decoder process must not pay for pydantic
    from emotion_app.settings import Limits


@dataclass(frozen=True)
class Caps:
    """Bounds of one decode.

    Attributes:
        max_s: seconds of sound; one sample more -> TOO_LONG.
        rate_min_hz: lower rates -> BAD_FORMAT (a 1 Hz header would expand 16,000 times).
        rate_max_hz: higher rates -> BAD_FORMAT.
        channels_max: more channels -> BAD_FORMAT.
        name_bytes: length of the shown name in UTF-8.
    """

    max_s: float
    rate_min_hz: int
    rate_max_hz: int
    channels_max: int
    name_bytes: int

    @classmethod
    def of(cls, limits: Limits, max_s: float | None) -> Caps:
        """The caps in ``limits``; ``max_s`` is ``batch_clip_s`` unless given."""
        return cls(
            max_s=limits.batch_clip_s if max_s is None else max_s,
            rate_min_hz=limits.rate_min_hz,
            rate_max_hz=limits.rate_max_hz,
            channels_max=limits.channels_max,
            name_bytes=limits.name_bytes,
        )
