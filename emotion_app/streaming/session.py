"""One live session: sound in, events and requests to the model out. No I/O, no clock, no thread of its own.

Time comes in as an argument and positions are sample numbers, so the same calls give the same events. What is asked
of the model goes out as ``Request``; whoever runs it calls ``answered`` or ``failed``. Answers are told in the order
of the requests. Where a sample is at each moment, and how it moves on, is written in ``account.Account``:

    received = analysed + silent + declared_dropped + buffered
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

from emotion_app.errors import BusyError, EmotionError, RequestError
from emotion_app.settings import Limits
from emotion_app.streaming import scoring
from emotion_app.streaming.account import Account
from emotion_app.streaming.alerts import AlertWatch, rules_of
from emotion_app.streaming.events import (
    AudioGapped,
    Event,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    Stats,
    error_event,
)
from emotion_app.streaming.pcm import PcmReader
from emotion_app.streaming.protocol import Config, SessionUpdate, VadConfig
from emotion_app.streaming.rate import RateGate
from emotion_app.streaming.results import Answered, Request, Utterance, final_events, window_events
from emotion_app.streaming.ring import Ring
from emotion_app.types import MIN_SAMPLES, SAMPLE_RATE, SHORT_S, Floats
from emotion_app.vad import WINDOW, Endpointing, SileroVad, SpeechDetector, SpeechEnd, SpeechStart

Action = Event | Request
Reason = Literal["declared", "position", "rate_limit"]
QUIET_CODES = ("CANCELLED", "MODEL_LOADING")  # of a window: replaced by a newer one, or asked for too early


class Session:
    """See the module.

    Args:
        config: how to listen.
        limits: bounds.
        network: speech detector's weights.
        now: the caller's clock.
        scorer: from frames to scores; where a baseline comes in.

    Attributes:
        account: counters.
        config: as it is now.
    """

    def __init__(
        self, config: Config, limits: Limits, network: SileroVad, now: float, scorer: scoring.Scorer = scoring.plain
    ) -> None:
        check_config(config, limits)
        self.config = config
        self.account = Account()
        self._limits = limits
        self._network = network
        self._scorers: deque[tuple[int, scoring.Scorer]] = deque([(0, scorer)])  # each from after this request
        self._pcm = PcmReader(config.sample_rate)
        self._gate = RateGate(limits.stream_rate_factor, limits.stream_burst_s, now)
        self._ring = Ring()
        self._detector = self._new_detector(0)
        self._watch = AlertWatch(rules_of(config.alerts, limits.stream_alerts))
        self._settled = 0  # every sample below has its fate, or is in flight
        self._in_flight = 0  # samples of ended utterances without their final answer
        self._input = 0  # position at the declared rate: whole samples received or declared missing
        self._gap: tuple[int, int] | None = None  # a gap that is still growing (too fast)
        self._utterance: Utterance | None = None
        self._requests: deque[Request] = deque()
        self._answers: dict[int, Answered | EmotionError] = {}
        self._asked = 0

    # -- what can be asked ---------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """End of the timeline."""
        return self._ring.stop

    @property
    def received_input(self) -> int:
        """Samples at the declared rate that came in or were declared missing: where a client goes on after a drop."""
        return self._input

    @property
    def buffered(self) -> int:
        """Samples whose fate is open."""
        return self._ring.stop - self._settled + self._in_flight

    @property
    def pending(self) -> int:
        """Requests without an answer that was told."""
        return len(self._requests)

    @property
    def n_bytes(self) -> int:
        """Memory of the sound held: the buffer and what is on its way to the model."""
        return self._ring.n_bytes + sum(r.samples.nbytes for r in self._requests)

    def stats(self) -> Stats:
        """The counters now."""
        return self.account.stats(self.buffered)

    # -- what comes in -------------------------------------------------------------------------------------------

    def push(self, data: bytes, now: float, position: int | None = None) -> list[Action]:
        """Take PCM bytes.

        Args:
            data: 16-bit little-endian mono at the declared rate; an odd byte waits for the next call.
            now: the caller's clock.
            position: number of the first sample, when the client says it: later than expected is a gap, earlier is
                a repeat, whose known part is ignored.
        """
        actions: list[Action] = []
        if position is not None:
            self._pcm.align()
            if position > self._input:
                actions += self.miss(position - self._input, "position", now)
            known = min(2 * (self._input - position), len(data) - len(data) % 2)
            self.account.repeated_input += known // 2
            data = data[known:]
        if not data:
            return actions
        if not self._gate.allows(len(data) / 2 / self.config.sample_rate, now):
            return actions + self._too_fast(len(data) // 2, now)
        actions += self._close_gap()
        before = self._pcm.taken
        samples = self._pcm.push(data)
        self._input += self._pcm.taken - before
        return actions + self._take(samples, now)

    def miss(self, samples: int, reason: Reason, now: float) -> list[Action]:
        """``samples`` at the declared rate are missing: the utterance ends before them, the timeline goes on after."""
        actions = self._close_gap() + self._flush(now, "gap")
        start, stop = self._skip(samples)
        return [*actions, AudioGapped.of(start, stop, reason=reason)]

    def end(self, now: float) -> list[Action]:
        """End mark: the running utterance gets its final answer. More may follow."""
        return self._close_gap() + self._flush(now, "end")

    def update(self, message: SessionUpdate, now: float) -> list[Action]:
        """Change the configuration. Windows change at once, the detector's rules with a fresh start of listening.

        Raises:
            RequestError: BAD_MESSAGE, BAD_OPTION; then nothing has changed.
        """
        config = self.config.updated(message)
        check_config(config, self._limits)
        rules = rules_of(config.alerts, self._limits.stream_alerts)
        actions: list[Action] = []
        if config.sample_rate != self.config.sample_rate:
            if self._input:
                raise RequestError("BAD_MESSAGE", reason="sample_rate cannot change once audio has come")
            self._pcm = PcmReader(config.sample_rate)
        if config.vad != self.config.vad:
            actions += self.end(now)
            self.config = config
            self._detector = self._new_detector(self._ring.stop)
        if config.alerts != self.config.alerts:
            self._watch = AlertWatch(rules)
        self.config = config
        return [*actions, SessionUpdated(config=config)]

    @property
    def asked(self) -> int:
        """Number of the newest request."""
        return self._asked

    def score_by(self, scorer: scoring.Scorer, after: int) -> None:
        """Score the answers to requests beyond number ``after`` in another way."""
        self._scorers.append((after, scorer))

    # -- what the model says -------------------------------------------------------------------------------------

    def answered(self, request: Request, answer: Answered) -> list[Event]:
        """The model answered; events come out once all earlier requests are through."""
        return self._settle_request(request, answer)

    def failed(self, request: Request, error: EmotionError) -> list[Event]:
        """The model did not answer."""
        return self._settle_request(request, error)

    def _settle_request(self, request: Request, answer: Answered | EmotionError) -> list[Event]:
        self._answers[request.number] = answer
        events: list[Event] = []
        while self._requests and self._requests[0].number in self._answers:
            first = self._requests.popleft()
            found = self._answers.pop(first.number)
            events += self._tell_failure(first, found) if isinstance(found, EmotionError) else self._tell(first, found)
        return events

    def _tell(self, request: Request, answered: Answered) -> list[Event]:
        final = request.kind == "final"
        while len(self._scorers) > 1 and request.number > self._scorers[1][0]:
            self._scorers.popleft()
        scored = self._scorers[0][1](answered.output, final)
        events, shown = (final_events if final else window_events)(request, answered, scored, self.config.frames)
        if final:
            self._in_flight -= request.stop - request.start
            self.account.analysed += request.stop - request.start
        else:
            self.account.windows += 1
        alerts = self._watch.see(request.start, request.stop, shown)
        self.account.alerts += len(alerts)
        return [*events, *alerts]

    def _tell_failure(self, request: Request, error: EmotionError) -> list[Event]:
        span = request.start, request.stop
        if request.kind == "final":
            self._in_flight -= span[1] - span[0]
            self.account.declared_dropped += span[1] - span[0]
            return [error_event(error, start=span[0], stop=span[1]), AudioGapped.of(*span, reason="not_analysed")]
        if error.code == "CANCELLED":
            self.account.replaced += 1
        elif error.code == "INFERENCE_TIMEOUT":
            self.account.late += 1
        else:
            self.account.skipped += 1
        return [] if error.code in QUIET_CODES else [error_event(error, start=span[0], stop=span[1])]

    # -- sound ---------------------------------------------------------------------------------------------------

    def _take(self, samples: Floats, now: float) -> list[Action]:
        self.account.received += len(samples)
        self._ring.push(samples)
        actions: list[Action] = []
        while self._ring.stop - self._detector.position >= WINDOW:
            at = self._detector.position
            heard = self._detector.push(self._ring.read(at, at + WINDOW))
            if isinstance(heard, SpeechStart):
                actions += self._speech_starts(heard.start)
            elif isinstance(heard, SpeechEnd):
                actions += self._speech_ends(heard, now)
            actions += self._window_due(now)
            self._settle(self._detector.keep_from)
        return actions

    def _settle(self, position: int) -> None:
        """Samples below ``position`` that belong to no utterance are silent."""
        if position > self._settled:
            self.account.silent += position - self._settled
            self._settled = position
        self._ring.discard(self._settled)

    def _speech_starts(self, start: int) -> list[Action]:
        self._utterance = Utterance(self.account.utterances + 1, start, scoring.Smoother(self.config.smoothing))
        self.account.utterances += 1
        return [
            SpeechStarted(
                utterance=self._utterance.number, start_sample=start, audio_start_ms=start * 1000 / SAMPLE_RATE
            )
        ]

    def _speech_ends(self, end: SpeechEnd, now: float) -> list[Action]:
        utterance, self._utterance = self._utterance, None
        if utterance is None or end.stop - end.start < MIN_SAMPLES:
            return []
        self._settle(end.start)
        self._in_flight += end.stop - end.start
        self._settled = end.stop
        stopped = SpeechStopped.of(end.start, end.stop, utterance=utterance.number, cause=end.cause)
        return [stopped, self._ask("final", utterance, end.start, end.stop, now)]

    def _window_due(self, now: float) -> list[Action]:
        """A request when a hop of speech is full; the first when there is enough sound to say anything."""
        utterance, detector = self._utterance, self._detector
        if utterance is None or detector.hanging:
            return []
        hop, window = round(self.config.hop_s * SAMPLE_RATE), round(self.config.window_s * SAMPLE_RATE)
        length = (detector.position - utterance.start) // hop * hop
        due = utterance.start + length
        if due <= utterance.last_due or length < min(window, round(SHORT_S * SAMPLE_RATE)):
            return []
        utterance.last_due = due
        return [self._ask("window", utterance, max(utterance.start, due - window), due, now)]

    def _ask(
        self, kind: Literal["window", "final"], utterance: Utterance, start: int, stop: int, now: float
    ) -> Request:
        self._asked += 1
        request = Request(self._asked, kind, utterance, start, stop, self._ring.read(start, stop), now)
        self._requests.append(request)
        return request

    def _flush(self, now: float, cause: Literal["end", "gap"]) -> list[Action]:
        """Bring everything to an end at the current position and listen afresh from there."""
        actions = self._take(self._pcm.flush(), now)
        over = self._detector.finish(self._ring.stop, cause)
        if over is not None:
            actions += self._speech_ends(over, now)
        self._utterance = None
        self._settle(self._ring.stop)
        return actions

    def _skip(self, samples: int) -> tuple[int, int]:
        """Move the timeline over samples that are not there; its interval."""
        start = self._ring.stop
        stop = start + self._pcm.length(samples)
        self._input += samples
        self.account.received += stop - start
        self.account.declared_dropped += stop - start
        self._ring.jump(stop)
        self._detector.restart(stop)
        self._settled = stop
        return start, stop

    def _too_fast(self, samples: int, now: float) -> list[Action]:
        actions: list[Action] = []
        if self._gap is None:
            actions = self._flush(now, "gap")
            actions.append(error_event(BusyError("RATE_LIMIT", factor=self._limits.stream_rate_factor)))
        start, stop = self._skip(samples)
        self._gap = (self._gap[0] if self._gap else start, stop)
        return actions

    def _close_gap(self) -> list[Action]:
        gap, self._gap = self._gap, None
        return [] if gap is None else [AudioGapped.of(*gap, reason="rate_limit")]

    def _new_detector(self, position: int) -> SpeechDetector:
        vad = self.config.vad
        return SpeechDetector(self._network if vad.enabled else None, endpointing(vad, self._limits), position)


def endpointing(vad: VadConfig, limits: Limits) -> Endpointing:
    """The detector's rules from their wire form."""
    return Endpointing(
        threshold=vad.threshold,
        release=max(0.01, vad.threshold - 0.15),
        min_speech_s=vad.min_speech_ms / 1000,
        hang_over_s=vad.hang_over_ms / 1000,
        pad_s=vad.pad_ms / 1000,
        max_s=limits.stream_utterance_s,
    )


def check_config(config: Config, limits: Limits) -> None:
    """What the wire types cannot know.

    Raises:
        RequestError: BAD_OPTION.
    """
    low, high = limits.rate_min_hz, limits.rate_max_hz
    if not low <= config.sample_rate <= high:
        raise RequestError("BAD_OPTION", option="sample_rate", value=config.sample_rate, choices=f"{low} - {high}")
    if config.hop_s > config.window_s:
        raise RequestError(
            "BAD_OPTION", option="hop_s", value=config.hop_s, choices=f"at most window_s = {config.window_s}"
        )


def events_of(actions: Sequence[Action]) -> list[Event]:
    """The events among actions."""
    return [a for a in actions if isinstance(a, Event)]
