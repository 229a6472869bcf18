"""docs/protocol.md is true: its examples are messages, and no message is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from emotion_app.errors import PROBLEMS
from emotion_app.streaming.events import SERVER_EVENTS, ServerEvent
from emotion_app.streaming.protocol import ClientMessage, Config, parse

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def types_of(union: object) -> set[str]:
    models = get_args(get_args(union)[0])
    return {get_args(m.model_fields["type"].annotation)[0] for m in models}


def examples(part: str) -> list[str]:
    return re.findall(r"```json\n(.*?)```", part, re.DOTALL)


def test_examples_are_valid_and_complete() -> None:
    client, server = PAGE.split("## Events of the server")
    server, alerts = server.split("## Slow clients")
    said = {parse(text).type for text in examples(client)}
    told = [SERVER_EVENTS.validate_json(text) for text in examples(server)]
    assert said == types_of(ClientMessage)
    assert {event.type for event in told} == types_of(ServerEvent)
    assert [parse(text).type for text in examples(alerts)] == ["session.update"]
    for event in told:
        if hasattr(event, "audio_end_ms"):
            assert event.audio_end_ms == event.stop_sample / 16 and event.audio_start_ms == event.start_sample / 16
        if hasattr(event, "stats"):
            s = event.stats
            assert s.received == s.analysed + s.silent + s.declared_dropped + s.buffered


def test_each_message_has_a_heading_and_each_default_is_right() -> None:
    headings = set(re.findall(r"^### (\S+)$", PAGE, re.MULTILINE))
    assert headings == types_of(ClientMessage) | types_of(ServerEvent)
    start = json.loads(examples(PAGE)[0])
    want = Config().model_dump(mode="json")
    assert {k: v for k, v in start.items() if k not in ("type", "alerts")} == {
        k: v for k, v in want.items() if k != "alerts"
    }


def test_error_codes_exist() -> None:
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+)", PAGE, re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([A-Z_]+)`", row)}
    assert len(codes) >= 14 and codes <= set(PROBLEMS)


def test_limits_on_the_page_are_those_of_the_settings() -> None:
    from emotion_app.settings import Limits

    limits = Limits()
    said = {
        256: limits.stream_message_kb,
        1.5: limits.stream_rate_factor,
        10: limits.stream_slow_s,
        60: limits.stream_idle_s,
        120: limits.stream_resume_s,
        7200: limits.stream_session_s,
        64: limits.webhook_queue,
        5: limits.webhook_timeout_s,
    }
    assert all(a == b for a, b in said.items()) and limits.stream_events == 256 and limits.stream_deadline_s == 1
