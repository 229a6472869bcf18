"""A session with a model behind it, on a clock of its own: everything happens at once and in order."""

from __future__ import annotations

from collections import deque

from emotion_app.engine import Engine
from emotion_app.errors import EmotionError
from emotion_app.settings import Limits
from emotion_app.streaming.events import Event
from emotion_app.streaming.protocol import Config
from emotion_app.streaming.results import Answered, Request
from emotion_app.streaming.session import Action, Session
from emotion_app.types import Waveform
from emotion_app.vad import SileroVad
from tests.streaming.sound import FAST


class Bench:
    """``push`` like a client; ``events`` fills up. With ``hold`` requests wait for ``run`` or ``fail``."""

    def __init__(
        self,
        network: SileroVad,
        engine: Engine,
        config: Config | None = None,
        limits: Limits = FAST,
        hold: bool = False,
    ) -> None:
        self.session = Session(config or Config(), limits, network, 0.0)
        self.engine = engine
        self.hold = hold
        self.now = 0.0
        self.events: list[Event] = []
        self.waiting: deque[Request] = deque()

    def push(self, data: bytes, position: int | None = None) -> None:
        self.now += len(data) / 2 / self.session.config.sample_rate
        self.act(self.session.push(data, self.now, position))

    def end(self) -> None:
        self.act(self.session.end(self.now))

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Event):
                self.events.append(action)
            else:
                self.waiting.append(action)
        while self.waiting and not self.hold:
            self.run()
        self.check()

    def run(self, index: int = 0) -> None:
        request = self.waiting[index]
        del self.waiting[index]
        output = self.engine.run([Waveform(request.samples)])[0]
        self.events += self.session.answered(request, Answered(output, self.engine.info.name, self.now))
        self.check()

    def fail(self, error: EmotionError, index: int = 0) -> None:
        request = self.waiting[index]
        del self.waiting[index]
        self.events += self.session.failed(request, error)
        self.check()

    def check(self) -> None:
        """The accounting identity, and the bounds of what is kept."""
        stats = self.session.stats()
        assert stats.received == stats.analysed + stats.silent + stats.declared_dropped + stats.buffered, stats
        assert min(stats.model_dump().values()) >= 0, stats
        assert self.session._ring.stop - self.session._ring.start <= (60 + 2) * 16_000

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]
