"""A session's own baseline: off, automatic from the third utterance, saved, reset; both scores in every result."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from emotion_app.analyzer import Options
from emotion_app.baseline import Baseline
from emotion_app.settings import Settings
from tests.live_server import LiveServer
from tests.streaming.sound import FAST, dialogue, pcm, pieces


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("baselines")
    with LiveServer(Settings(model="lite", offline=True, limits=FAST, baselines_dir=folder)) as running:
        yield running


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return dialogue(5)


def finals(server: LiveServer, sound: np.ndarray, **config: object) -> list[dict]:
    with server.client() as client:
        client.send("session.start", frames=False, **config)
        for piece in pieces(pcm(sound), 6400):
            client.ws.send(piece)
        client.finish()
        return [e for e in client.events if e["type"] == "emotion_result" and e["final"]]


def test_off_by_default(server: LiveServer, sound: np.ndarray) -> None:
    assert all(f.get("adjusted") is None and f["shown"] == "scores" for f in finals(server, sound))


def test_automatic_after_three_utterances_equals_the_rule(server: LiveServer, sound: np.ndarray) -> None:
    results = finals(server, sound, baseline="auto")
    loaded = server.analyzer.pool.get()
    rule = server.analyzer.need_rule(loaded)
    own = Baseline.empty("session", loaded.engine.info, rule, None)
    used = []
    for final in results:
        heard = server.analyzer.analyze(
            (16_000, sound[final["start_sample"] : final["stop_sample"]]), Options(baseline=own)
        )
        np.testing.assert_allclose(list(final["scores"].values()), heard.prediction.scores, atol=1e-4)
        assert final["baseline_clips"] == (own.count if own.count >= rule.min_clips else 0)
        if heard.adjusted is not None:
            used.append(final)
            np.testing.assert_allclose(list(final["adjusted"].values()), heard.adjusted.prediction.scores, atol=1e-4)
            assert final["shown"] == "adjusted" and final["emotion"] == heard.adjusted.prediction.label
        own = own.add(server.analyzer.hear((16_000, sound[final["start_sample"] : final["stop_sample"]])).output)
    assert used, "five utterances give at least one adjusted answer"


def test_saved_one_judges_the_first_utterance(server: LiveServer, sound: np.ndarray) -> None:
    loaded = server.analyzer.pool.get()
    saved = Baseline.empty("desk", loaded.engine.info, server.analyzer.need_rule(loaded), 0.85)
    for part in np.array_split(sound, 4):
        saved = saved.add(server.analyzer.hear((16_000, part)).output)
    server.analyzer.baselines.save(saved)
    results = finals(server, sound[: len(sound) // 2], baseline="desk")
    assert results and all(f["shown"] == "adjusted" and f["baseline_clips"] == saved.count for f in results)


def test_unknown_name_is_told_and_the_session_lives(server: LiveServer, sound: np.ndarray) -> None:
    with server.client() as client:
        client.send("session.start", frames=False, baseline="nobody")
        client.ws.send(pcm(sound[: 4 * 16_000]))
        client.finish()
    assert "BASELINE_MISSING" in [e.get("code") for e in client.events] or any(
        e["type"] == "error" and "nobody" in e["message"] for e in client.events
    )
    assert any(e["type"] == "emotion_result" and e["final"] for e in client.events)


def test_reset_begins_anew(server: LiveServer, sound: np.ndarray) -> None:
    with server.client() as client:
        client.send("session.start", frames=False, baseline="auto")
        for _ in range(2):
            for piece in pieces(pcm(sound), 6400):
                client.ws.send(piece)
            client.send("audio.end")
            client.send("baseline.reset")
        client.finish()
    clips = [e["baseline_clips"] for e in client.events if e["type"] == "emotion_result" and e["final"]]
    assert max(clips) < len(clips) / 2 + 1
