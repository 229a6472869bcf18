"""Live sessions under load and under bad clients: nothing is lost, and nobody disturbs a neighbour."""

from __future__ import annotations

import os

# oneDNN keeps up to 1024 compiled primitives, one for each length of clip: 0.4 MB a final answer (measured).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from emotion_app.settings import Limits, Settings
from tests.live_server import Client, LiveServer, wait_for
from tests.streaming.sound import FAST, dialogue, pcm

STEP = 3200  # bytes: 100 ms
SECONDS = float(os.environ.get("EMOTION_TEST_STREAM_S", "60"))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(Settings(model="lite", offline=True, limits=Limits())) as running:
        yield running


@pytest.fixture(scope="module")
def speech() -> bytes:
    return pcm(dialogue(3))


def real_time(client: Client, speech: bytes, seconds: float, events: list[dict], start_s: float = 0.0) -> None:
    """Speak ``speech`` in a loop at real time; what comes back goes to ``events``."""
    client.send("session.start")
    began, sent, at = time.monotonic(), 0.0, int(start_s * 32_000)
    reader = threading.Thread(target=read_all, args=(client, events), daemon=True)
    reader.start()
    while sent < seconds:
        client.ws.send((speech[at : at + STEP] + speech)[:STEP])
        at = (at + STEP) % len(speech)
        sent += STEP / 32_000
        time.sleep(max(0.0, began + sent - time.monotonic()))
    client.send("session.end")
    reader.join(30)


def read_all(client: Client, events: list[dict]) -> None:
    try:
        while True:
            event = client.next(60)
            event["at"] = time.monotonic()
            events.append(event)
    except (ConnectionClosed, TimeoutError, OSError):
        return


def check_whole(events: list[dict]) -> dict:
    """A session that ended well: contiguous ids, a final for each utterance, every sample accounted for."""
    assert events and events[-1]["type"] == "session.ended", [e["type"] for e in events[-3:]]
    assert [e["event_id"] for e in events] == list(range(1, len(events) + 1))
    stats = events[-1]["stats"]
    assert stats["declared_dropped"] == 0 == stats["buffered"]
    assert stats["received"] == stats["analysed"] + stats["silent"]
    finals = [e["utterance"] for e in events if e["type"] == "emotion_result" and e["final"]]
    assert finals == list(range(1, stats["utterances"] + 1))
    for kind in ("emotion_result", "speech_stopped"):
        stops = [e["stop_sample"] for e in events if e["type"] == kind]
        assert stops == sorted(stops)
    told = sorted((e["start_sample"], e["stop_sample"]) for e in events if e["type"] == "frame_result")
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(told))  # each frame once
    return stats


def flood(server: LiveServer, speech: bytes, until: float) -> str:
    """Four times real time."""
    with server.client() as client:
        threading.Thread(target=read_all, args=(client, []), daemon=True).start()
        while time.monotonic() < until:
            client.ws.send(speech[:STEP])
            time.sleep(0.025)
        time.sleep(0.5)
        return ",".join(sorted({e["code"] for e in client.of("error")}))


def spit(server: LiveServer, speech: bytes, until: float) -> str:
    """Garbage, ten times a second."""
    dice = random.Random(0)
    with server.client() as client:
        threading.Thread(target=read_all, args=(client, []), daemon=True).start()
        while time.monotonic() < until:
            client.ws.send(dice.choice(["{", '{"type":1}', "\0", '{"type":"audio","audio":"?"}', "[" * 999]))
            client.ws.send(dice.randbytes(dice.randrange(1, 99)))
            time.sleep(0.1)
        time.sleep(0.5)
        return ",".join(sorted({e["code"] for e in client.of("error")}))


def dribble(server: LiveServer, speech: bytes, until: float) -> str:
    """One byte a message."""
    with server.client() as client:
        at = 0
        client.send("session.start", stats_s=0)
        while time.monotonic() < until:
            client.ws.send(speech[at : at + 1])
            at += 1
            time.sleep(0.001)
        client.send("session.stats")
        return str(client.until("session.stats")["stats"]["received"] == at // 2)


def vanish(server: LiveServer, speech: bytes, until: float) -> str:
    """Come, speak, and go without a word, again and again."""
    while time.monotonic() < until:
        client = server.client()
        client.sound(speech[: STEP * 5])
        client.vanish()
        time.sleep(3)
    return ""


def knock(server: LiveServer, speech: bytes, until: float) -> str:
    """A foreign page, and a wrong secret."""
    while time.monotonic() < until:
        try:
            server.client(origin="http://evil.example")
        except Exception as error:
            assert "403" in str(error)
        with server.client() as client:
            client.send("session.resume", session_id="x", secret="y")
            assert client.until("error")["code"] == "SESSION_UNKNOWN"
        time.sleep(0.5)
    return ""


def test_eight_streams_for_a_minute_among_bad_neighbours(server: LiveServer, speech: bytes) -> None:
    told: list[list[dict]] = [[] for _ in range(8)]
    clients = [server.client() for _ in told]
    threads = [
        threading.Thread(target=real_time, args=(c, speech, SECONDS, e, 1.3 * i))
        for i, (c, e) in enumerate(zip(clients, told, strict=True))
    ]
    outcomes: dict[str, str] = {}
    until = time.monotonic() + SECONDS - 2

    def badly(kind: Callable[[LiveServer, bytes, float], str]) -> None:
        outcomes[kind.__name__] = kind(server, speech, until)

    with server.client() as warm:  # the model and its first buffers are no growth
        warm.send("session.start")
        warm.until("session.ready")
        warm.sound(speech[:400_000])
        warm.finish()
    process = psutil.Process()
    memory = process.memory_info().rss
    threads += [threading.Thread(target=badly, args=(k,)) for k in (flood, spit, dribble, vanish, knock)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 40)
    assert outcomes == {"flood": "RATE_LIMIT", "spit": "BAD_MESSAGE", "dribble": "True", "vanish": "", "knock": ""}
    stats = [check_whole(events) for events in told]
    assert [s["received"] for s in stats] == [SECONDS * 16_000] * 8
    assert all(s["utterances"] >= SECONDS / 10 and s["windows"] >= SECONDS / 6 for s in stats), stats
    assert process.memory_info().rss - memory < 150e6  # eight sessions, five bad clients and their own clients here
    totals = server.totals()
    assert totals.connected == 0 and totals.sessions >= 10  # those that vanished are waited for


def test_a_client_that_does_not_read_is_closed_and_may_come_back(speech: bytes) -> None:
    limits = FAST.model_copy(update={"stream_slow_s": 1.5})
    with LiveServer(Settings(model="lite", offline=True, limits=limits), send_buffer=8192) as server:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        client = server.client(sock=raw, max_queue=1)
        client.send("session.start", hop_s=0.1, window_s=1.0, stats_s=0.05)
        created = client.until("session.created")
        neighbour: list[dict] = []
        other = server.client()
        beside = threading.Thread(target=real_time, args=(other, speech, 8.0, neighbour))
        beside.start()
        until = time.monotonic() + 15
        while server.totals().slow == 0 and time.monotonic() < until:
            try:
                client.sound(speech, 32_000, 0.05)
            except ConnectionClosed:
                break
        wait_for(lambda: server.totals().slow == 1, 15, "the slow client was not closed")
        live = server.manager._sessions[created["session_id"]]
        assert len(live.outbox) <= limits.stream_events and live.link is None and not live.over
        with server.client() as back:
            back.send(
                "session.resume",
                session_id=created["session_id"],
                secret=created["secret"],
                last_event_id=client.events[-1]["event_id"],
            )
            assert back.until("session.resumed")["lost"] == 0
            stats = back.finish()["stats"]
            ids = [e["event_id"] for e in client.events + back.events if "event_id" in e]
            assert ids == list(range(1, len(ids) + 1))
            finals = [e["utterance"] for e in client.events + back.events if e.get("final")]
            assert finals == list(range(1, stats["utterances"] + 1))
        beside.join(30)
        check_whole(neighbour)


@pytest.fixture(scope="module")
def hasty() -> Iterator[LiveServer]:
    """A server that lets sound come faster than it was spoken."""
    with LiveServer(Settings(model="lite", offline=True, limits=FAST)) as running:
        yield running


@pytest.mark.parametrize("seed", range(4))
def test_resuming_loses_and_repeats_nothing(hasty: LiveServer, speech: bytes, seed: int) -> None:
    server = hasty
    dice = random.Random(seed)
    keys: dict[str, object] = {}
    events: list[dict] = []
    at, client = 0, server.client()
    client.send("session.start", stats_s=0)
    created = client.until("session.created")
    keys = {"session_id": created["session_id"], "secret": created["secret"]}
    drops = sorted(dice.sample(range(20, len(speech) // STEP - 5), 3))
    while at < len(speech):
        client.ws.send(speech[at : at + STEP])
        at += STEP
        time.sleep(0.02)
        if at // STEP in drops:
            client.vanish()
            seen = list(client.events)  # what came after was never read: it is lost with the connection
            events += [e for e in seen if "event_id" in e]
            if dice.random() < 0.5:
                wait_for(lambda: server.totals().connected == 0)
            client = server.client()
            client.send("session.resume", **keys, last_event_id=events[-1]["event_id"])
            resumed = client.until("session.resumed")
            assert resumed["lost"] == 0
            at = 2 * resumed["received_input"]
    client.send("session.end")
    client.until("session.ended")
    events += [e for e in client.events if "event_id" in e]
    stats = check_whole(events)
    assert stats["received"] == len(speech) // 2
    whole = uninterrupted(server, speech)
    finals = [e for e in events if e.get("final")]
    assert [(f["start_sample"], f["stop_sample"]) for f in finals] == [
        (f["start_sample"], f["stop_sample"]) for f in whole
    ]
    for one, other in zip(finals, whole, strict=True):
        np.testing.assert_allclose(list(one["scores"].values()), list(other["scores"].values()), atol=1e-4)


_WHOLE: list[dict] = []


def uninterrupted(server: LiveServer, speech: bytes) -> list[dict]:
    """Final answers of the same sound without any drop."""
    if not _WHOLE:
        with server.client() as client:
            client.sound(speech)
            client.finish()
            _WHOLE.extend(e for e in client.events if e.get("final"))
    return _WHOLE


def test_the_newest_connection_wins_and_the_old_one_is_told(server: LiveServer, speech: bytes) -> None:
    with server.client() as old, server.client() as new:
        old.send("session.start", stats_s=0)
        created = old.until("session.created")
        old.until("session.ready")
        last = old.events[-1]["event_id"]
        for wrong in ({"secret": "x"}, {"session_id": "x"}, {"secret": created["secret"] + "x"}):
            new.send("session.resume", **{"session_id": created["session_id"], "secret": created["secret"], **wrong})
            assert new.until("error")["code"] == "SESSION_UNKNOWN"
        new.send("session.resume", session_id=created["session_id"], secret=created["secret"], last_event_id=last)
        new.until("session.resumed")
        assert old.until("error")["code"] == "SESSION_TAKEN"
        with pytest.raises(ConnectionClosed):
            old.next()
        assert old.ws.close_code == 4001
        new.sound(speech[: STEP * 3])
        new.send("session.stats")
        assert new.until("session.stats")["stats"]["received"] == 4800
        new.finish()


def test_clocks_of_a_session() -> None:
    limits = FAST.model_copy(update={"stream_idle_s": 0.6, "stream_resume_s": 0.6, "stream_session_s": 3.0})
    with LiveServer(Settings(model="lite", offline=True, limits=limits)) as server:
        with server.client() as silent:  # never says anything
            assert silent.until("error")["code"] == "SESSION_IDLE"
        with server.client() as idle:
            idle.send("session.start")
            assert idle.until("error", fatal=True)["code"] == "SESSION_IDLE"
            idle.until("session.ended", reason="SESSION_IDLE")
        gone = server.client()
        gone.send("session.start")
        created = gone.until("session.created")
        gone.vanish()
        wait_for(lambda: server.totals().sessions == 0, what="a lost client was waited for too long")
        with server.client() as late:
            late.send("session.resume", session_id=created["session_id"], secret=created["secret"])
            assert late.until("error")["code"] == "SESSION_UNKNOWN"
        with server.client() as long:
            for _ in range(40):
                try:
                    long.ws.send(bytes(3200))
                except ConnectionClosed:
                    break
                time.sleep(0.1)
            assert long.until("error", fatal=True)["code"] == "SESSION_LIMIT"


def test_churn_and_vanishing_leave_nothing_behind(speech: bytes) -> None:
    limits = FAST.model_copy(update={"stream_resume_s": 0.5, "stream_sessions": 100})
    with LiveServer(Settings(model="lite", offline=True, limits=limits)) as server:
        with server.client() as warm:
            warm.sound(speech)
            warm.finish()
        wait_for(lambda: server.totals().sessions == 0)
        memory, threads = psutil.Process().memory_info().rss, threading.active_count()
        for i in range(150):
            client = server.client()
            client.sound(speech[: STEP * 3])
            if i % 3:
                client.ws.close()
            else:
                client.vanish()
        wait_for(lambda: server.totals().sessions == 0, 20, "sessions stayed behind")
        assert server.totals().started == 151 and server.analyzer.load().requests == 0
        assert psutil.Process().memory_info().rss - memory < 40e6
        wait_for(lambda: threading.active_count() <= threads + 1, what="threads stayed behind")
        assert server.call(_tasks) <= 4
        with server.client() as client:
            client.sound(speech)
            assert client.finish()["stats"]["declared_dropped"] == 0


def _tasks() -> int:
    import asyncio

    return len(asyncio.all_tasks())


def test_a_goodbye_ends_the_session_at_once(server: LiveServer) -> None:
    before = server.totals().sessions
    client = server.client()
    client.send("session.start")
    client.until("session.ready")
    client.ws.close()
    wait_for(lambda: server.totals().sessions == before)


def test_windows_that_are_too_late_are_told(speech: bytes) -> None:
    limits = FAST.model_copy(update={"stream_deadline_s": 0.0001})
    with LiveServer(Settings(model="lite", offline=True, limits=limits)) as server, server.client() as client:
        client.send("session.start")
        client.until("session.ready")
        client.sound(speech, STEP, 0.01)
        stats = client.finish()["stats"]
        assert stats["late"] + stats["replaced"] > 0 and stats["declared_dropped"] == 0
        if stats["late"]:
            assert {e["code"] for e in client.of("error")} == {"INFERENCE_TIMEOUT"}
        assert len([e for e in client.events if e.get("final")]) == stats["utterances"]


def test_a_full_queue_delays_finals_but_loses_none(speech: bytes) -> None:
    limits = FAST.model_copy(update={"queue_requests": 1})
    with LiveServer(Settings(model="lite", offline=True, limits=limits)) as server:
        clients = [server.client() for _ in range(6)]
        for client in clients:
            client.send("session.start")
            client.until("session.ready")
        for at in range(0, len(speech), 32_000):
            for client in clients:
                client.ws.send(speech[at : at + 32_000])
        for client in clients:
            stats = client.finish()["stats"]
            assert stats["declared_dropped"] == 0
            assert len([e for e in client.events if e.get("final")]) == stats["utterances"] > 0
            assert json.dumps(client.events)
            client.ws.close()
