"""Rules that watch a session: an emotion held for some time, or a share of the last minute."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from emotion_app.errors import RequestError
from emotion_app.labels import KEYS, NEGATIVE, index_of
from emotion_app.streaming.events import Alert
from emotion_app.streaming.protocol import AlertRule
from emotion_app.types import SAMPLE_RATE, Prediction

_TEXT = re.compile(
    r"\s*(?P<what>[^\d<>=%]+?)\s*>=?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<percent>%?)\s*"
    r"(?P<how>for|of(?:\s+the)?(?:\s+last)?)\s+(?P<seconds>\d+(?:\.\d+)?)\s*s\s*",
    re.IGNORECASE,
)


def parse_rule(text: str) -> AlertRule:
    """A rule from its text: ``angry >= 0.7 for 2 s``, ``sad + fearful > 40 % of 60 s``, ``negative >= 0.8 for 3 s``.

    ``for`` makes a hold rule, ``of`` a share rule; ``negative`` stands for angry, disgusted, fearful and sad.

    Raises:
        RequestError: BAD_OPTION.

    >>> rule = parse_rule("negative > 50% of the last 60 s"); rule.kind, rule.emotions, rule.threshold, rule.for_s
    ('share', ('angry', 'disgusted', 'fearful', 'sad'), 0.5, 60.0)
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise _refused(text)
    number = float(found["number"]) / (100 if found["percent"] else 1)
    names = [name.strip() for name in found["what"].split("+")]
    keys: list[str] = []
    for name in names:
        index = index_of(name)
        if name.lower() == "negative":
            keys += NEGATIVE
        elif index is not None:
            keys.append(KEYS[index])
        else:
            raise _refused(text)
    try:
        return AlertRule(
            name=text.strip()[:80],
            kind="hold" if found["how"].lower() == "for" else "share",
            emotions=tuple(dict.fromkeys(keys)),
            threshold=number,
            for_s=float(found["seconds"]),
        )
    except ValueError as error:
        raise _refused(text) from error


def rules_of(given: Iterable[AlertRule | str], most: int) -> tuple[AlertRule, ...]:
    """Typed rules from texts and rules.

    Raises:
        RequestError: BAD_OPTION: not understood, or more than ``most``.
    """
    rules = tuple(parse_rule(rule) if isinstance(rule, str) else rule for rule in given)
    if len(rules) > most:
        raise RequestError("BAD_OPTION", option="alerts", value=len(rules), choices=f"at most {most}")
    return rules


def _refused(text: str) -> RequestError:
    return RequestError(
        "BAD_OPTION", option="alert", value=text[:80], choices="angry >= 0.7 for 2 s | negative > 50 % of 60 s"
    )


@dataclass
class _Watch:
    """What one rule has seen."""

    rule: AlertRule
    held: int = 0  # samples of speech in a row that fulfilled a hold rule
    silent_until: int = 0  # sample number: cool-down
    seconds: deque[tuple[int, int, int]] = field(default_factory=deque)  # (second, samples of speech, of them hits)

    def see(self, stop: int, fresh: int, prediction: Prediction) -> float | None:
        """Take a result with ``fresh`` samples of new speech; the value that makes an alert, or None."""
        indices = [KEYS.index(e) for e in self.rule.emotions]
        if self.rule.kind == "hold":
            value = float(prediction.scores[indices].sum())
            self.held = self.held + fresh if value >= self.rule.threshold else 0
            true = self.held >= self.rule.for_s * SAMPLE_RATE
        else:
            value, speech = self._share(stop, fresh, prediction.label in self.rule.emotions)
            true = value > self.rule.threshold and speech >= min(self.rule.min_speech_s, self.rule.for_s)
        if not true or stop < self.silent_until:
            return None
        self.silent_until = stop + round(self.rule.cooldown_s * SAMPLE_RATE)
        return value

    def _share(self, stop: int, fresh: int, hit: bool) -> tuple[float, float]:
        """Share of speech with a hit, and seconds of speech, over the last ``for_s``; counted by whole seconds."""
        second = stop // SAMPLE_RATE
        total, hits = fresh, fresh * hit
        if self.seconds and self.seconds[-1][0] == second:
            _, t, h = self.seconds.pop()
            total, hits = total + t, hits + h
        self.seconds.append((second, total, hits))
        while self.seconds[0][0] <= second - self.rule.for_s:
            self.seconds.popleft()
        speech = sum(t for _, t, _ in self.seconds)
        return sum(h for _, _, h in self.seconds) / max(1, speech), speech / SAMPLE_RATE


class AlertWatch:
    """All rules of a session. Time is the session's own, so a replay gives the same alerts.

    Args:
        rules: what to watch for.
    """

    def __init__(self, rules: tuple[AlertRule, ...]) -> None:
        self._watches = [_Watch(rule) for rule in rules]
        self._seen = 0  # speech up to here was counted: windows overlap

    def see(self, start: int, stop: int, prediction: Prediction) -> list[Alert]:
        """Alerts that the result of ``[start, stop)`` sets off."""
        fresh = stop - max(start, self._seen)
        if fresh <= 0:
            return []
        self._seen = stop
        alerts = []
        for watch in self._watches:
            value = watch.see(stop, fresh, prediction)
            if value is not None:
                rule = watch.rule
                since = max(0, stop - round(rule.for_s * SAMPLE_RATE))
                alerts.append(
                    Alert.of(
                        since,
                        stop,
                        rule=rule.name or ", ".join(rule.emotions),
                        kind=rule.kind,
                        value=round(value, 6),
                        threshold=rule.threshold,
                    )
                )
        return alerts
