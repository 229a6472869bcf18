"""The package's own client: a file and a pipe give what an upload gives; drops are survived; refusals are told."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emotion_app import audio
from emotion_app.errors import AccessError, BusyError, RequestError
from emotion_app.settings import Settings
from emotion_app.streaming import client as client_module
from emotion_app.streaming.client import Streamer, Tape, paced, stream
from emotion_app.streaming.events import EmotionResult, Event
from emotion_app.types import Waveform
from tests.live_server import LiveServer, Wire
from tests.streaming.sound import FAST, dialogue, from_pcm, pcm


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(Settings(model="lite", offline=True, limits=FAST)) as running:
        yield running


def check(server: LiveServer, sound: np.ndarray, events: list[Event]) -> None:
    finals = [e for e in events if isinstance(e, EmotionResult) and e.final]
    assert len(finals) >= 2
    for final in finals:
        want = server.analyzer.analyze((16_000, sound[final.start_sample : final.stop_sample]))
        np.testing.assert_allclose(list(final.scores.values()), want.prediction.scores, atol=1e-4)
    ids = [e.event_id for e in events if e.event_id]
    assert ids == list(range(1, len(ids) + 1))


def test_a_file(server: LiveServer, tmp_path: Path) -> None:
    sound, events = dialogue(2), []
    audio.write_wav(tmp_path / "speech.wav", Waveform(sound))
    ended = stream(tmp_path / "speech.wav", url=server.url, speed=20, config={"stats_s": 0}, tell=events.append)
    assert ended.stats.received == len(sound)
    check(server, np.clip(sound, -1, 32767 / 32768), events)


def test_a_pipe(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, events = dialogue(2), []
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": io.BytesIO(pcm(sound))}))
    stream("-", url=server.url, tell=events.append)
    check(server, from_pcm(pcm(sound)), events)


def test_a_cut_wire_costs_nothing(server: LiveServer) -> None:
    sound, events, wire = dialogue(2), [], Wire(server.port)

    async def run() -> None:
        streamer = Streamer(f"ws://127.0.0.1:{wire.port}/ws/emotion", None, {"stats_s": 0}, events.append)
        task = asyncio.create_task(streamer.run(paced(pcm(sound), 16_000, 4)))
        for _ in range(3):
            await asyncio.sleep(0.7)
            wire.cut()
        ended = await asyncio.wait_for(task, 60)
        assert ended.stats.received == len(sound) and ended.stats.declared_dropped == 0

    asyncio.run(run())
    wire.close()
    check(server, sound, events)


def test_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]

    async def nothing():
        yield bytes(3200)

    def run(url: str, token: str | None = None, **config: object) -> None:
        asyncio.run(Streamer(url, token, config, lambda e: None).run(nothing()))

    with pytest.raises(RequestError, match="No server"):
        run(f"ws://127.0.0.1:{free}/ws/emotion")
    limits = FAST.model_copy(update={"stream_sessions": 1})
    with LiveServer(Settings(model="lite", offline=True, token="t", limits=limits)) as server:
        with pytest.raises(AccessError):
            run(server.url)
        with server.client(additional_headers={"Authorization": "Bearer t"}) as other:
            other.send("session.start")
            other.until("session.ready")
            with pytest.raises(BusyError) as caught:
                run(server.url, "t")
            assert caught.value.code == "AT_CAPACITY"


def test_tape_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "KEEP_S", 1.0)
    tape, whole = Tape(1000), bytes(range(256)) * 100
    for at in range(0, len(whole), 100):
        tape.add(whole[at : at + 100])
        assert whole[tape.start : tape.stop] == bytes(tape.data) and tape.start % 2 == 0
    assert 2000 <= len(tape.data) <= 3100
    assert tape.since(tape.stop - 10) == whole[-10:] and tape.since(0) == bytes(tape.data)
