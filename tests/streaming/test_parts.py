"""Ring, PCM, rate, outbox, rules and webhook, each by itself."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_app.errors import ConfigError, EmotionError, RequestError
from emotion_app.labels import KEYS
from emotion_app.settings import Limits, Settings
from emotion_app.streaming.account import NOTHING
from emotion_app.streaming.alerts import AlertWatch, parse_rule, rules_of
from emotion_app.streaming.events import Alert, EmotionResult, ErrorEvent, FrameResult, SessionStats, SpeechStarted
from emotion_app.streaming.outbox import Outbox
from emotion_app.streaming.pcm import PcmReader
from emotion_app.streaming.protocol import AlertRule, parse
from emotion_app.streaming.rate import RateGate
from emotion_app.streaming.ring import REST_SAMPLES, Ring
from emotion_app.streaming.wavchunk import unwrap
from emotion_app.streaming.webhook import Webhook
from emotion_app.types import Prediction
from tests.live_server import wait_for


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300_000), st.floats(0, 1)), max_size=12))
def test_ring_holds_what_was_pushed(steps: list[tuple[int, float]]) -> None:
    ring, position = Ring(), 0
    for n, share in steps:
        ring.push(np.arange(position, position + n, dtype=np.float32))
        position += n
        ring.discard(ring.start + int(share * (ring.stop - ring.start)))
        assert ring.stop == position and len(ring.read(ring.start, ring.stop)) == position - ring.start
        np.testing.assert_array_equal(
            ring.read(ring.start, ring.stop), np.arange(ring.start, position, dtype=np.float32)
        )
    ring.discard(position)
    ring.push(np.zeros(REST_SAMPLES // 2, np.float32))
    ring.jump(10**12)
    assert ring.n_bytes == REST_SAMPLES * 4 and ring.start == ring.stop == 10**12
    with pytest.raises(ValueError, match="not within"):
        ring.read(0, 1)


def test_a_minute_fits_into_five_megabytes() -> None:
    ring = Ring()
    for _ in range(600):
        ring.push(np.zeros(1600, np.float32))
    assert ring.n_bytes < 5.2e6


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]), st.integers(0, 20_000), st.randoms())
def test_pcm_is_the_same_in_any_pieces(rate: int, n: int, dice: object) -> None:
    data = np.random.default_rng(n).integers(-3000, 3000, n).astype("<i2").tobytes()
    whole, cut, at = PcmReader(rate), PcmReader(rate), 0
    want = np.concatenate([whole.push(data), whole.flush()])
    got = []
    while at < len(data):
        step = dice.randint(1, 5000)
        got.append(cut.push(data[at : at + step]))
        at += step
    got.append(cut.flush())
    np.testing.assert_array_equal(np.concatenate(got), want)
    assert len(want) == round(n * 16_000 / rate)
    np.testing.assert_array_equal(np.concatenate([cut.push(data), cut.flush()]), want)  # afresh after a flush


def test_rate_gate_closes_once_and_opens_again() -> None:
    gate = RateGate(1.5, 10, 0.0)
    passed = [gate.allows(0.1, i * 0.025) for i in range(2000)]  # 4 x real time for 50 s
    changes = sum(a != b for a, b in itertools.pairwise(passed))
    assert 100 < sum(passed) < 1.5 * (50 + 10) * 10 + 10 and changes <= 20
    assert gate.allows(1.0, 1000.0) and not gate.allows(16.0, 1000.0)


# -- outbox -------------------------------------------------------------------------------------------------------


def frames(utterance: int, start: int, n: int) -> FrameResult:
    return FrameResult.of(
        start,
        start + 320 * n,
        utterance=utterance,
        emotions=("sad",) * n,
        timestamp=0.0,
        scores=((1.0, *(0.0,) * 8),) * n,
    )


def result(stop: int, final: bool = False) -> EmotionResult:
    scores = dict.fromkeys(KEYS, 0.0)
    return EmotionResult.of(
        0,
        stop,
        trigger="speech_ended" if final else "interval",
        final=final,
        utterance=1,
        emotion="sad",
        confidence=1.0,
        scores=scores,
        model="m",
        timestamp=0.0,
        latency_ms=0.0,
    )


def taken(outbox: Outbox) -> list:
    found = []
    while (event := outbox.take()) is not None:
        found.append(event)
    return found


def test_partial_events_merge_and_final_ones_do_not() -> None:
    outbox = Outbox("s", 100)
    for event in (
        result(1),
        frames(1, 0, 5),
        result(2),
        frames(1, 1600, 3),
        SessionStats(stats=NOTHING),
        result(3, True),
        result(4, True),
        SessionStats(stats=NOTHING),
        frames(1, 9600, 1),
        result(5),
    ):
        outbox.put(event)
    found = taken(outbox)
    assert [e.event_id for e in found] == [1, 2, 3, 4, 5, 6]
    rows = [e for e in found if isinstance(e, FrameResult)]
    assert [(r.start_sample, r.stop_sample, len(r.scores)) for r in rows] == [(0, 2560, 8), (9600, 9920, 1)]
    assert [e.stop_sample for e in found if isinstance(e, EmotionResult)] == [3, 4, 5] and outbox.merged == 4
    assert all(e.session_id == "s" for e in found) and outbox.take() is None


def test_outbox_bound() -> None:
    outbox = Outbox("s", 16)
    for i in range(16):
        outbox.put(frames(i, 0, 1))
    outbox.put(result(1, True))
    assert len(outbox) == 16 and not outbox.overflow
    for i in range(16):
        outbox.put(result(i, True))
    assert outbox.overflow


def test_rewind_sends_again_what_was_not_seen() -> None:
    outbox = Outbox("s", 16)
    for i in range(20):
        outbox.put(result(i, True))
        if i % 2:
            taken(outbox)
    assert outbox.rewind(15) == (5, 0) and [e.event_id for e in taken(outbox)] == [16, 17, 18, 19, 20]
    assert outbox.rewind(20) == (0, 0) and outbox.rewind(99) == (0, 0)
    assert outbox.rewind(1) == (16, 3)
    outbox.put(SpeechStarted(utterance=1, start_sample=0, audio_start_ms=0))
    assert [e.event_id for e in taken(outbox)] == list(range(5, 22))


def test_waiting_ends_with_news() -> None:
    async def run() -> None:
        outbox = Outbox("s", 16)
        assert outbox.take() is None
        waiter = asyncio.create_task(outbox.wait())
        await asyncio.sleep(0.01)
        assert not waiter.done()
        outbox.put(ErrorEvent(code="BUSY", message="", message_zh=""))
        await asyncio.wait_for(waiter, 1)

    asyncio.run(run())


# -- rules --------------------------------------------------------------------------------------------------------


def says(**scores: float) -> Prediction:
    rest = (1 - sum(scores.values())) / (9 - len(scores))
    return Prediction(np.array([scores.get(key, rest) for key in KEYS]))


@pytest.mark.parametrize(
    ("text", "kind", "emotions", "threshold", "seconds"),
    [
        ("angry >= 0.7 for 2 s", "hold", ("angry",), 0.7, 2),
        ("  愤怒 >= 70% for 2.5s ", "hold", ("angry",), 0.7, 2.5),
        ("negative > 50 % of the last 60 s", "share", ("angry", "disgusted", "fearful", "sad"), 0.5, 60),
        ("sad + fearful + sad > 40% of 30 s", "share", ("sad", "fearful"), 0.4, 30),
    ],
)
def test_rules_in_words(text: str, kind: str, emotions: tuple, threshold: float, seconds: float) -> None:
    rule = parse_rule(text)
    assert (rule.kind, rule.emotions, rule.threshold, rule.for_s) == (kind, emotions, threshold, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "angry",
        "angry >= 0.7",
        "bored >= 0.7 for 2 s",
        "angry >= 7 for 2 s",
        "angry < 0.2 for 2 s",
        "angry >= 0.7 for 0 s",
        "angry >= 0.7 for 99999 s",
        "a" * 500,
    ],
)
def test_wrong_rules(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        rules_of([text], 16)
    assert caught.value.code == "BAD_OPTION"


def test_a_held_emotion_alerts_once_per_cool_down() -> None:
    watch = AlertWatch(rules_of(["angry >= 0.7 for 2 s"], 16))
    stops = [
        alert.stop_sample for i in range(2, 200) for alert in watch.see(max(0, i - 6) * 8000, i * 8000, says(angry=0.8))
    ]
    assert stops[0] == 32_000 and len(stops) == 4 and stops[1] - stops[0] == 30 * 16_000


def test_an_interrupted_emotion_does_not_alert() -> None:
    watch = AlertWatch(rules_of(["angry >= 0.7 for 2 s"], 16))
    for i in range(1, 100):
        assert watch.see((i - 1) * 8000, i * 8000, says(angry=0.6 if i % 4 == 0 else 0.9)) == []


def test_a_share_of_the_last_minute() -> None:
    watch = AlertWatch((AlertRule(kind="share", emotions=("sad", "angry"), threshold=0.5, for_s=60, cooldown_s=0),))
    seen: list[tuple[int, float]] = []
    for second in range(1, 240):
        sad = 60 < second <= 120
        for alert in watch.see((second - 1) * 16_000, second * 16_000, says(sad=0.9) if sad else says(happy=0.9)):
            seen.append((second, alert.value))
    assert seen[0][0] == 91 and seen[-1][0] == 149 and max(v for _, v in seen) == 1.0
    assert all(0.5 < value <= 1 for _, value in seen)


def test_overlapping_windows_are_counted_once() -> None:
    watch = AlertWatch(
        (AlertRule(kind="share", emotions=("sad",), threshold=0.01, for_s=60, min_speech_s=5, cooldown_s=0),)
    )
    found = [i for i in range(2, 20) if watch.see(max(0, i - 6) * 8000, i * 8000, says(sad=0.9))]
    assert found[0] == 10  # five seconds of speech, not of windows


# -- webhook ------------------------------------------------------------------------------------------------------


class _Target(BaseHTTPRequestHandler):
    heard: ClassVar[list[tuple[str, bytes, dict]]] = []
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.path, body, dict(self.headers)))
        self.send_response(self.status)
        if self.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def alert() -> Alert:
    return Alert.of(0, 16_000, rule="r", kind="hold", value=0.9, threshold=0.7)


def test_webhook_is_signed_and_follows_nothing() -> None:
    target = type("Target", (_Target,), {"heard": []})
    with HTTPServer(("127.0.0.1", 0), target) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        port = http.server_address[1]
        hook = Webhook(
            Settings(
                webhook_url=f"http://127.0.0.1:{port}/alerts?x=1", webhook_hosts=("127.0.0.1",), webhook_secret="key"
            )
        )
        hook.post(alert())
        wait_for(lambda: hook.sent == 1)
        path, body, headers = target.heard[0]
        signed = headers["X-Emotion-Timestamp"].encode() + b"." + body
        assert path == "/alerts?x=1" and json.loads(body)["rule"] == "r"
        assert headers["X-Emotion-Signature"] == "sha256=" + hmac.new(b"key", signed, hashlib.sha256).hexdigest()
        target.status = 302
        hook.post(alert())
        wait_for(lambda: hook.failed == 1)
        assert len(target.heard) == 2
        http.shutdown()
        hook.close()


def test_webhook_has_bounds_and_never_blocks() -> None:
    blocked = threading.Event()

    class Slow(_Target):
        def do_POST(self) -> None:
            blocked.wait(5)
            super().do_POST()

    with HTTPServer(("127.0.0.1", 0), Slow) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        hook = Webhook(
            Settings(
                webhook_url=f"http://127.0.0.1:{http.server_address[1]}/",
                webhook_hosts=("127.0.0.1",),
                webhook_secret="key",
                limits=Limits(webhook_queue=3, webhook_timeout_s=0.5),
            )
        )
        for _ in range(20):
            hook.post(alert())
        assert hook.dropped >= 15
        wait_for(lambda: hook.failed >= 1)
        blocked.set()
        http.shutdown()
        hook.close()


@pytest.mark.parametrize(
    "change",
    [
        {"webhook_hosts": ()},
        {"webhook_hosts": ("other",)},
        {"webhook_secret": None},
        {"webhook_url": "ftp://a/"},
        {"webhook_url": "http://"},
    ],
)
def test_webhook_must_be_allowed(change: dict) -> None:
    fields = {"webhook_url": "http://a.example/", "webhook_hosts": ("a.example",), "webhook_secret": "k", **change}
    with pytest.raises(ConfigError):
        Webhook(Settings(**fields))


# -- messages -----------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda c: (
                st.lists(c)
                | st.dictionaries(
                    st.sampled_from(
                        ["type", "audio", "samples", "vad", "alerts", "is_speaking", "session_id", "secret", "window_s"]
                    ),
                    c,
                )
            ),
        ).map(json.dumps),
    )
)
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        parse(text)
    except EmotionError as error:
        assert error.code == "BAD_MESSAGE" and error.text("zh")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_wav_does_more_than_be_refused(tail: bytes) -> None:
    for data in (
        tail,
        b"RIFF\0\0\0\0WAVE" + tail,
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\xff\xff\xff\xff" + tail,
    ):
        try:
            assert len(unwrap(data).pcm) % 2 == 0 or not data.startswith(b"RIFF")
        except EmotionError as error:
            assert error.code in ("UNDECODABLE", "BAD_FORMAT")
