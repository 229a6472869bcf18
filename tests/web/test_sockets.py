"""Both live doors with real clients: parity with uploads, errors that leave the session alive, who may come in."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
import wave
from collections.abc import Iterator

import numpy as np
import pytest
import socketio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from emotion_app.analyzer import Options
from emotion_app.settings import Settings
from emotion_app.streaming.events import SERVER_EVENTS
from tests.live_server import Client, LiveServer, wait_for
from tests.streaming.sound import FAST, dialogue, pcm, pieces


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(Settings(model="lite", offline=True, limits=FAST)) as running:
        yield running


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return dialogue(2)


def check_finals(server: LiveServer, sound: np.ndarray, events: list[dict]) -> None:
    """Every final answer equals the upload of its stretch; ids have no holes; every event is as documented."""
    finals = [e for e in events if e["type"] == "emotion_result" and e["final"]]
    assert len(finals) >= 2
    for final in finals:
        stretch = sound[final["start_sample"] : final["stop_sample"]]
        want = server.analyzer.analyze((16_000, stretch), Options("frame"))
        np.testing.assert_allclose(list(final["scores"].values()), want.prediction.scores, atol=1e-4)
        assert final["emotion"] == want.prediction.label and len(final["segments"]) == len(want.segments)
    ids = [e["event_id"] for e in events if "event_id" in e]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    for event in events:
        SERVER_EVENTS.validate_python(event)


@pytest.mark.parametrize("size", [1234, 6400, "random"])
def test_a_streamed_file_equals_its_upload(server: LiveServer, sound: np.ndarray, size: int | str) -> None:
    with server.client() as client:
        client.send("session.start")
        for piece in pieces(pcm(sound), size):
            client.ws.send(piece)
        ended = client.finish()
        stats = ended["stats"]
        assert stats["received"] == len(sound) == stats["analysed"] + stats["silent"]
        check_finals(server, sound, client.events)
        with pytest.raises(ConnectionClosed):
            client.next()


def test_base64_and_a_declared_rate(server: LiveServer, sound: np.ndarray) -> None:
    data = pcm(sound, 48_000)
    with server.client() as client:
        client.send("session.start", sample_rate=48_000)
        for at in range(0, len(data), 9600):
            piece = base64.b64encode(data[at : at + 9600]).decode()
            client.send("audio", audio=piece, position=at // 2)
        stats = client.finish()["stats"]
        assert stats["received"] == round(len(data) / 2 / 3) and stats["declared_dropped"] == 0
        finals = [e for e in client.of("emotion_result") if e["final"]]
        assert len(finals) >= 2 and all(e["model"] == "lite" for e in finals)


def test_sound_alone_begins_a_session_and_funasr_end_mark_works(server: LiveServer, sound: np.ndarray) -> None:
    with server.client() as client:
        client.sound(pcm(sound)[:96_000])
        client.ws.send('{"is_speaking": false}')
        final = client.until("emotion_result", final=True)
        assert client.of("speech_stopped")[0]["cause"] == "end" and final["stop_sample"] == 48_000
        client.finish()


GARBAGE = [
    "",
    "not json",
    "[]",
    "{}",
    '{"type": "nonsense"}',
    '{"type": "audio", "audio": "%%%"}',
    "[" * 5000,
    '{"type": "session.update", "hop": 1}',
    '{"type": "session.update", "window_s": 1e9}',
    '"x"',
    "null",
    '{"type": "audio.gap", "samples": -1}',
    '{"type": "session.start"}',
    '{"type": "audio"}',
    '{"type": "session.resume", "session_id": "a", "secret": "b"}',
    "{" * 300_000,
]


def test_bad_messages_get_an_error_and_the_session_lives(server: LiveServer, sound: np.ndarray) -> None:
    with server.client() as client:
        client.send("session.start")
        client.until("session.ready")
        for text in GARBAGE:
            client.ws.send(text)
            error = client.until("error")
            assert not error["fatal"] and error["code"] in ("BAD_MESSAGE", "MESSAGE_TOO_LARGE"), error
            assert error["message"] and error["message_zh"]
        client.ws.send(bytes(300_000))
        assert client.until("error")["code"] == "MESSAGE_TOO_LARGE"
        client.sound(pcm(sound))
        client.finish()
        check_finals(server, sound, client.events)


def test_errors_before_a_session_do_not_begin_one(server: LiveServer) -> None:
    before = server.totals().started
    with server.client() as client:
        for text in GARBAGE[:4]:
            client.ws.send(text)
            assert "event_id" not in client.until("error")
        client.send("session.start", sample_rate=1)
        assert client.until("error")["code"] == "BAD_OPTION"
        client.send("session.start", alerts=["angry"])
        assert client.until("error")["code"] == "BAD_OPTION"
    assert server.totals().started == before


def test_settings_statistics_and_models(server: LiveServer) -> None:
    with server.client() as client:
        client.send("session.start", model="lite", stats_s=0)
        client.until("session.ready")
        client.send("session.update", window_s=2.0, vad={"threshold": 0.6}, alerts=["sad >= 0.9 for 3 s"])
        config = client.until("session.updated")["config"]
        assert config["window_s"] == 2.0 and config["vad"]["threshold"] == 0.6 and config["vad"]["pad_ms"] == 200
        client.send("session.stats")
        assert client.until("session.stats")["stats"]["received"] == 0
        client.send("session.update", model="emotion2vec_plus_base")  # known, but its files are not here
        error = client.until("error")
        assert error["code"] == "MODEL_MISSING" and error["fatal"]
        client.until("session.ended")
    for model in ("/etc/passwd", "some/hub-id", "nonsense"):
        with server.client() as client:
            client.send("session.start", model=model)
            assert client.until("error")["code"] == "MODEL_UNKNOWN"


def test_alerts_are_told(server: LiveServer, sound: np.ndarray) -> None:
    rules = ["angry + disgusted + fearful + happy + neutral + other + sad + surprised + unknown >= 99% for 1 s"]
    with server.client() as client:
        client.send("session.start", alerts=rules)
        client.sound(pcm(sound))
        client.finish()
        alerts = client.of("alert")
        assert alerts and alerts[0]["kind"] == "hold" and alerts[0]["value"] >= 0.99


def test_foreign_pages_are_refused(server: LiveServer) -> None:
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url, origin=origin, proxy=None)
        assert caught.value.response.status_code == 403
    connect(server.url, origin=server.http, proxy=None).close()
    with pytest.raises(InvalidStatus):
        connect(server.url, additional_headers={"Host": "evil.example"}, proxy=None)


def test_a_listed_site_may_open_live_sessions_and_nothing_else() -> None:
    with LiveServer(Settings(model="lite", offline=True, allowed_origins=("http://shop.example",))) as server:
        connect(server.url, origin="http://shop.example", proxy=None).close()
        for origin in ("http://shop.example.evil", "https://shop.example", "http://shop.example:81"):
            with pytest.raises(InvalidStatus):
                connect(server.url, origin=origin, proxy=None)
        caller = socketio.Client(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            caller.connect(server.http, headers={"Origin": "http://shop.example"}, transports=["polling"])


def test_token(sound: np.ndarray) -> None:
    with LiveServer(Settings(model="lite", offline=True, token="right", limits=FAST)) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus) as caught:
                connect(server.url, additional_headers=headers, proxy=None)
            assert caught.value.response.status_code == 403
        with server.client(additional_headers={"Authorization": "Bearer right"}) as client:
            client.send("session.start")
            client.until("session.ready")
        for headers, allowed in (({}, False), ({"Authorization": "Bearer right"}, True)):
            caller = socketio.Client()
            if allowed:
                caller.connect(server.http, headers=headers, transports=["websocket"])
                caller.disconnect()
            else:
                with pytest.raises(socketio.exceptions.ConnectionError):
                    caller.connect(server.http, headers=headers)


# -- Socket.IO ----------------------------------------------------------------------------------------------------


class Caller:
    """A Socket.IO client that keeps every event."""

    def __init__(self, server: LiveServer, transport: str = "websocket", **options: object) -> None:
        self.client = socketio.Client(reconnection=False)
        self._heard: list[dict] = []
        self.client.on("*", lambda event, data: self._heard.append(data))
        self.client.connect(server.http, transports=[transport], **options)

    @property
    def events(self) -> list[dict]:
        """In their order: the client library calls its handlers from several threads."""
        return sorted(self._heard, key=lambda e: e.get("event_id", 0))

    def until(self, kind: str, timeout_s: float = 20, **fields: object) -> dict:
        def found() -> list[dict]:
            return [e for e in self.events if e["type"] == kind and all(e.get(k) == v for k, v in fields.items())]

        wait_for(found, timeout_s, f"no {kind}")
        return found()[0]

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()


def wav(data: bytes, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(data)
    return file.getvalue()


FORMS = {
    "base64 WAV": lambda d: base64.b64encode(wav(d)).decode(),
    "data address": lambda d: "data:audio/wav;base64," + base64.b64encode(wav(d)).decode(),
    "base64 PCM": lambda d: base64.b64encode(d).decode(),
    "binary WAV": wav,
    "binary PCM": lambda d: d,
}


@pytest.mark.parametrize("form", FORMS)
def test_audio_stream_in_every_form_equals_the_upload(server: LiveServer, sound: np.ndarray, form: str) -> None:
    with Caller(server, "polling" if form == "base64 WAV" else "websocket") as caller:
        for piece in pieces(pcm(sound), 16_000):
            caller.client.emit("audio_stream", {"chunk": FORMS[form](piece), "session_id": "my-id"})
            if form == "base64 WAV":  # polling takes 16 messages at a time (the library's limit)
                time.sleep(0.05)
        caller.client.emit("session.end", {})
        caller.until("session.ended")
        check_finals(server, sound, caller.events)
        results = [e for e in caller.events if e["type"] == "emotion_result"]
        assert all(e["client_session_id"] == "my-id" != e["session_id"] for e in results)
        assert any(e["type"] == "frame_result" for e in caller.events)


def test_a_wav_declares_its_rate_and_channels(server: LiveServer, sound: np.ndarray) -> None:
    mono = np.frombuffer(pcm(sound, 8_000), "<i2")
    stereo = np.stack([mono, mono], 1).tobytes()
    with Caller(server) as caller:
        for piece in pieces(stereo, 16_000):
            caller.client.emit("audio_stream", {"chunk": wav(piece, 8_000, 2)})
        caller.client.emit("session.end")
        stats = caller.until("session.ended")["stats"]
        assert stats["received"] == len(mono) * 2 and stats["analysed"] > 0
        assert len([e for e in caller.events if e["type"] == "emotion_result" and e["final"]]) >= 2


def test_nobody_hears_or_feeds_another_session(server: LiveServer, sound: np.ndarray) -> None:
    with Caller(server) as mine, Caller(server) as other:
        mine.client.emit("session.start", {})
        name = mine.until("session.created")["session_id"]
        other.client.emit("audio_stream", {"chunk": pcm(sound)[:64_000], "session_id": name})
        assert other.until("session.created")["session_id"] != name
        mine.client.emit("session.stats", {})
        assert mine.until("session.stats")["stats"]["received"] == 0
        assert {e["session_id"] for e in mine.events} == {name}


def test_socketio_errors_leave_the_session_alive(server: LiveServer, sound: np.ndarray) -> None:
    with Caller(server) as caller:
        caller.client.emit("session.start", {})
        caller.until("session.ready")
        for data in (
            None,
            {},
            {"chunk": "%%%"},
            {"chunk": 7},
            {"chunk": b"RIFF    WAVE"},
            {"chunk": wav(bytes(8), 1)},
            {"chunk": b"\0" * 8, "position": "x"},
            "%%",
            [1, 2],
        ):
            caller._heard.clear()
            answer = caller.client.call("audio_stream", data)
            assert answer["error"] in ("BAD_MESSAGE", "UNDECODABLE", "BAD_OPTION"), (data, answer)
            caller.until("error", code=answer["error"])
        assert caller.client.call("nonsense", {"a": 1})["error"] == "BAD_MESSAGE"
        assert caller.client.call("audio_stream", {"chunk": bytes(3200)})["received"] == 1600


def test_socketio_refuses_foreign_pages(server: LiveServer) -> None:
    for transport in ("polling", "websocket"):
        caller = socketio.Client(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            caller.connect(server.http, headers={"Origin": "http://evil.example"}, transports=[transport])


def test_socketio_resumes_by_secret(server: LiveServer, sound: np.ndarray) -> None:
    data = pcm(sound)
    first = Caller(server)
    first.client.emit("session.start", {"stats_s": 0})
    created = first.until("session.created")
    first.until("session.ready")  # windows asked for before that are passed over
    for piece in pieces(data[:128_000], 6400):
        first.client.emit("audio_stream", {"chunk": piece})
    first.until("emotion_result")
    # The cable, not a goodbye. Closing alone would send nothing while the client's own thread waits in a read.
    first.client.eio.ws.sock.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: server.totals().connected == 0)
    time.sleep(0.3)  # the client's own threads
    seen = first.events
    keys = {"session_id": created["session_id"], "secret": created["secret"], "last_event_id": seen[-1]["event_id"]}
    with pytest.raises(socketio.exceptions.ConnectionError):
        Caller(server, auth={**keys, "secret": "wrong"})
    with Caller(server, auth=keys) as second:
        at = 2 * second.until("session.resumed")["received_input"]
        for piece in pieces(data[at:], 6400):
            second.client.emit("audio_stream", {"chunk": piece})
        second.client.emit("session.end", {})
        second.until("session.ended")
        check_finals(server, sound, seen + [e for e in second.events if "event_id" in e])


def test_capacity_is_said_at_once() -> None:
    limits = FAST.model_copy(update={"stream_sessions": 1})
    with LiveServer(Settings(model="lite", offline=True, limits=limits)) as server, server.client() as client:
        client.send("session.start")
        created = client.until("session.created")
        began = time.monotonic()
        with server.client() as late:
            error = late.next()
            assert error["code"] == "AT_CAPACITY" and error["fatal"] and time.monotonic() - began < 2
            late.ws.send(bytes(3200))
            with pytest.raises(ConnectionClosed):
                late.next()
        with pytest.raises(socketio.exceptions.ConnectionError):
            Caller(server)
        client.vanish()
        wait_for(lambda: server.totals().connected == 0)
        with server.client() as back:  # full, but its own place is kept
            assert back.next()["code"] == "AT_CAPACITY"
            back.send("session.resume", session_id=created["session_id"], secret=created["secret"], last_event_id=0)
            assert back.next()["type"] == "session.resumed"
            back.finish()
        with server.client() as next_one:
            next_one.send("session.start")
            assert next_one.next()["type"] == "session.created"
        assert server.totals().refused >= 3


def test_connections_have_a_bound() -> None:
    limits = FAST.model_copy(update={"stream_sessions": 2})
    with LiveServer(Settings(model="lite", offline=True, limits=limits)) as server:
        clients = [server.client() for _ in range(4)]
        with pytest.raises(InvalidStatus) as caught:
            server.client()
        assert caught.value.response.status_code == 503
        assert json.loads(caught.value.response.body)["error"]["code"] == "AT_CAPACITY"
        for client in clients:
            client.ws.close()
        wait_for(lambda: not _refuses(server))


def _refuses(server: LiveServer) -> bool:
    try:
        server.client().ws.close()
    except InvalidStatus:
        return True
    return False


def test_shutdown_is_told() -> None:
    server = LiveServer(Settings(model="lite", offline=True, limits=FAST))
    with server:
        client: Client = server.client()
        client.send("session.start")
        client.until("session.ready")
        began = time.monotonic()
        server.call(lambda: setattr(server._server, "should_exit", True))
        with pytest.raises(ConnectionClosed):
            client.until("nothing")
        assert client.ws.close_code == 1012  # "service restart"
        server._thread.join(5)
        assert not server._thread.is_alive() and time.monotonic() - began < 5
