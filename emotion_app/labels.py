"""The nine emotions of emotion2vec+: the only place where their order, names and colours stand.

Order and hub names follow ``tokens.txt`` of ``iic/emotion2vec_plus_large``; the colours are the product's own
palette (text drawn on them reaches WCAG AA with the ``ink`` given here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Lang = Literal["zh", "en"]


@dataclass(frozen=True)
class Emotion:
    """One class of the model.

    Attributes:
        key: stable English identifier used in JSON, CSV and metrics.
        en: English display name.
        zh: Chinese display name.
        hub: name in the hub's ``tokens.txt``.
        emoji: one emoji, never the only sign (the word stands beside it).
        colour: ``#RRGGBB`` used for this class in every chart, page and export.
        ink: text colour readable on ``colour``.
    """

    key: str
    en: str
    zh: str
    hub: str
    emoji: str
    colour: str
    ink: str = "#FFFFFF"

    def name(self, lang: Lang) -> str:
        """Display name in ``lang``."""
        return self.zh if lang == "zh" else self.en


_DARK = "#111113"

EMOTIONS: tuple[Emotion, ...] = (
    Emotion("angry", "Angry", "愤怒", "生气/angry", "😠", "#E5484D", _DARK),
    Emotion("disgusted", "Disgusted", "厌恶", "厌恶/disgusted", "🤢", "#7C9A0A", _DARK),
    Emotion("fearful", "Fearful", "恐惧", "恐惧/fearful", "😨", "#8E4EC6"),
    Emotion("happy", "Happy", "快乐", "开心/happy", "😊", "#F0A800", _DARK),
    Emotion("neutral", "Neutral", "中性", "中立/neutral", "😐", "#8B8D98", _DARK),
    Emotion("other", "Other", "其他", "其他/other", "🤔", "#B08968", _DARK),
    Emotion("sad", "Sad", "悲伤", "难过/sad", "😢", "#3E63DD"),
    Emotion("surprised", "Surprised", "惊讶", "吃惊/surprised", "😲", "#0E9FBF", _DARK),
    Emotion("unknown", "Unknown", "未知", "<unk>", "❓", "#C6C5BF", _DARK),
)
KEYS: tuple[str, ...] = tuple(e.key for e in EMOTIONS)
INDEX: dict[str, int] = {e.key: i for i, e in enumerate(EMOTIONS)}
N_EMOTIONS = len(EMOTIONS)

NEGATIVE: tuple[str, ...] = ("angry", "disgusted", "fearful", "sad")  # used by monitoring rules

_ALIASES: dict[str, int] = {
    **{name.lower(): i for i, e in enumerate(EMOTIONS) for name in (e.key, e.en, e.zh, e.hub, *e.hub.split("/"))},
    "unk": INDEX["unknown"],
}


def index_of(name: str) -> int | None:
    """Index of an emotion by any of its names, or None.

    >>> index_of("开心/happy"), index_of("<unk>"), index_of("Sad"), index_of("unuse_0")
    (3, 8, 6, None)
    """
    return _ALIASES.get(name.strip().lower())
