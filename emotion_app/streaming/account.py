"""Where every sample of a session is, and how often what happened: exact integers, one object a session."""

from __future__ import annotations

from dataclasses import dataclass, fields

from emotion_app.streaming.events import Stats


@dataclass
class Account:
    """Counters of one session, in samples of its 16 kHz timeline unless said otherwise.

    A sample is *received* when it comes out of the resampler, or when it is declared missing. From then on it is in
    exactly one state:

    - *buffered*: kept, its fate open: younger than the detector's last window, in the pad before possible speech, in
      the running utterance, or in an ended utterance whose final answer is still being computed;
    - *silent*: no utterance holds it (buffered -> silent when the detector moves on);
    - *analysed*: its utterance got its final answer (buffered -> analysed);
    - *declared_dropped*: the client said it is missing, or it came too fast, or the final answer of its utterance
      failed; the client was told by an ``audio_gap`` with this stretch (received or buffered -> declared_dropped).

    No sample leaves silent, analysed or declared_dropped. ``buffered`` is worked out by the session from positions,
    not from the other counters, so that their sum is a check.

    Attributes:
        utterances: final answers asked for.
        windows: interval answers given.
        late: windows whose answer was not ready in time; told as INFERENCE_TIMEOUT.
        replaced: windows that gave way to a newer one while they waited.
        skipped: windows not asked for: the model was still loading, or the queue was full.
        alerts: rules that came true.
        repeated_input: samples (at the declared rate) that the client sent twice; the second was ignored.
    """

    received: int = 0
    analysed: int = 0
    silent: int = 0
    declared_dropped: int = 0
    utterances: int = 0
    windows: int = 0
    late: int = 0
    replaced: int = 0
    skipped: int = 0
    alerts: int = 0
    repeated_input: int = 0

    def stats(self, buffered: int) -> Stats:
        """The wire form."""
        return Stats(buffered=buffered, **{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Totals:
    """All sessions of this process together, ended ones included: what metrics read.

    Attributes:
        sessions: alive now.
        connected: of these, with a connection now.
        started: since the process began.
        resumed: how often a client came back.
        refused: AT_CAPACITY answers.
        slow: clients closed because they did not read.
        events: told to clients.
        merged: partial events that gave way to a newer one.
        stats: the sums of all sessions' accounts; ``buffered`` of those alive.
    """

    sessions: int
    connected: int
    started: int
    resumed: int
    refused: int
    slow: int
    events: int
    merged: int
    stats: Stats


def add(one: Stats, other: Stats) -> Stats:
    """Sum of two accounts."""
    return Stats(**{name: getattr(one, name) + getattr(other, name) for name in Stats.model_fields})


NOTHING = Stats(**dict.fromkeys(Stats.model_fields, 0))
