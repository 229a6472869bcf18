"""Anything a client and a model may do, in any order: the account of samples holds after every step."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emotion_app.engine import Engine
from emotion_app.errors import BusyError, EmotionError, ModelError
from emotion_app.settings import Limits
from emotion_app.streaming.events import AudioGapped, EmotionResult, FrameResult, SpeechStarted, SpeechStopped
from emotion_app.streaming.outbox import Outbox
from emotion_app.streaming.protocol import Config, SessionUpdate, VadConfig
from emotion_app.streaming.results import Answered
from emotion_app.streaming.session import events_of
from emotion_app.types import HOP_SAMPLES, Waveform, n_frames
from emotion_app.vad import SileroVad
from tests.local_model import LocalModel
from tests.streaming.bench import Bench
from tests.streaming.sound import dialogue, pcm

LIMITS = Limits(stream_rate_factor=4, stream_utterance_s=2.0, stream_events=32)
ERRORS = [
    BusyError("INFERENCE_TIMEOUT", limit_s=1),
    BusyError("CANCELLED"),
    BusyError("BUSY", retry_after_s=1),
    ModelError("INFERENCE_FAILED", reason="x"),
    ModelError("OUT_OF_MEMORY"),
    ModelError("MODEL_LOADING", percent=1),
]
NETWORK = SileroVad()
SPEECH = pcm(dialogue(2))


class SessionMachine(RuleBasedStateMachine):
    """A session, an outbox and a reader that may stay away."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(NETWORK, Engine(LocalModel()), Config(vad=VadConfig(hang_over_ms=200)), LIMITS, hold=True)
        self.outbox = Outbox("s", LIMITS.stream_events)
        self.told = 0
        self.sent: list[int] = []
        self.at = 0

    def _next(self, n: int) -> bytes:
        start = self.at
        self.at = (self.at + n) % (len(SPEECH) - 200_000)
        return SPEECH[start : start + n]

    @rule(n=st.integers(0, 16_000))
    def push(self, n: int) -> None:
        self.bench.push(self._next(n))

    @rule(n=st.integers(1, 40_000))
    def push_at_once(self, n: int) -> None:
        self.bench.act(self.bench.session.push(self._next(n), self.bench.now))

    @rule(n=st.integers(0, 12_000), offset=st.integers(-5_000, 5_000))
    def push_at_position(self, n: int, offset: int) -> None:
        self.bench.push(self._next(n), max(0, self.bench.session.received_input + offset))

    @rule(n=st.integers(0, 9_000), scale=st.sampled_from([0, 1, 30_000]))
    def push_noise(self, n: int, scale: int) -> None:
        noise = np.random.default_rng(n).uniform(-1, 1, n) * scale
        self.bench.push(noise.astype("<i2").tobytes())

    @rule(n=st.integers(1, 100_000))
    def gap(self, n: int) -> None:
        self.bench.act(self.bench.session.miss(n, "declared", self.bench.now))

    @rule()
    def end(self) -> None:
        self.bench.end()

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.bench.now += seconds

    @rule(
        change=st.sampled_from(
            [
                {"window_s": 1.0},
                {"hop_s": 0.1},
                {"window_s": 3.0, "hop_s": 0.5},
                {"frames": False},
                {"frames": True},
                {"vad": {"enabled": False}},
                {"vad": {"enabled": True}},
                {"vad": {"pad_ms": 0}},
                {"vad": {"threshold": 0.2}},
                {"smoothing": 0.0},
                {"alerts": ["angry >= 0.1 for 1 s", "negative > 1 % of 3 s"]},
                {"hop_s": 9.0},
                {"sample_rate": 8000},
                {"vad": {"threshold": 2}},
                {"alerts": ["x"]},
            ]
        )
    )
    def update(self, change: dict) -> None:
        before = self.bench.session.config
        try:
            message = SessionUpdate.model_validate({"type": "session.update", **change})
            self.bench.act(self.bench.session.update(message, self.bench.now))
        except EmotionError:
            assert self.bench.session.config == before

    @precondition(lambda self: self.bench.waiting)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.bench.run(data.draw(st.integers(0, len(self.bench.waiting) - 1)))

    @precondition(lambda self: self.bench.waiting)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data: st.DataObject, error: EmotionError) -> None:
        self.bench.fail(error, data.draw(st.integers(0, len(self.bench.waiting) - 1)))

    @rule(n=st.integers(1, 20))
    def read(self, n: int) -> None:
        for _ in range(n):
            event = self.outbox.take()
            if event is not None:
                self.sent.append(event.event_id)

    @rule(back=st.integers(0, 40))
    def resume(self, back: int) -> None:
        seen = self.sent[: max(0, len(self.sent) - back)]
        replayed, lost = self.outbox.rewind(seen[-1] if seen else 0)
        assert replayed + lost == self.outbox.last_id - (seen[-1] if seen else 0) and lost <= max(0, back - 32)
        self.sent = seen + list(range((seen[-1] if seen else 0) + 1, (seen[-1] if seen else 0) + 1 + lost))

    @invariant()
    def accounts_hold(self) -> None:
        self.bench.check()
        session = self.bench.session
        assert session.stats().received == session.position
        assert session.n_bytes < 12e6 + sum(r.samples.nbytes for r in session._requests)

    @invariant()
    def events_reach_the_outbox_within_its_bound(self) -> None:
        for event in self.bench.events[self.told :]:
            self.outbox.put(event)
        self.told = len(self.bench.events)
        assert len(self.outbox) <= 2 * 32 or self.outbox.overflow
        assert self.sent == list(range(1, len(self.sent) + 1))

    @invariant()
    def stretches_do_not_overlap(self) -> None:
        spans = sorted((e.start_sample, e.stop_sample) for e in self.bench.of(SpeechStopped))
        spans += [(e.start_sample, e.stop_sample) for e in self.bench.of(AudioGapped) if e.reason != "not_analysed"]
        spans.sort()
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        assert all(
            stop - start <= 32_000
            for start, stop in ((e.start_sample, e.stop_sample) for e in self.bench.of(SpeechStopped))
        )

    def teardown(self) -> None:
        """At the end nothing is open, and every utterance was answered once, with each of its frames at most once."""
        bench = self.bench
        bench.end()
        while bench.waiting:
            bench.run()
        stats = bench.session.stats()
        assert stats.buffered == 0 and bench.session.pending == 0
        assert len(bench.of(SpeechStarted)) == len(bench.of(SpeechStopped)) == stats.utterances
        finals = [e for e in bench.of(EmotionResult) if e.final]
        assert len({f.utterance for f in finals}) == len(finals) <= stats.utterances
        assert stats.analysed == sum(f.stop_sample - f.start_sample for f in finals)
        for final in finals:
            told = np.zeros(n_frames(final.stop_sample - final.start_sample), int)
            for rows in (f for f in bench.of(FrameResult) if f.utterance == final.utterance):
                first = (rows.start_sample - final.start_sample) // HOP_SAMPLES
                told[first : first + len(rows.scores)] += 1
            assert told.max() <= 1


SessionMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
test_session_machine = SessionMachine.TestCase


def test_the_same_calls_give_the_same_events() -> None:
    def play() -> list:
        bench = Bench(NETWORK, Engine(LocalModel()))
        for at in range(0, len(SPEECH), 6400):
            bench.push(SPEECH[at : at + 6400])
        bench.end()
        return bench.events

    assert play() == play()


def test_an_answer_after_everything_is_over_is_still_told() -> None:
    bench = Bench(NETWORK, Engine(LocalModel()), hold=True)
    bench.push(SPEECH)
    bench.end()
    requests = list(bench.waiting)
    for request in requests:
        output = bench.engine.run([Waveform(request.samples)])[0]
        assert events_of(bench.session.answered(request, Answered(output, "m", 0.0)))
    assert bench.session.pending == 0
