"""Log lines: one a request, with the id that the client got; no file names."""

import json
import time

import httpx

from tests.served import served


def lines_of(app, ids: list[str]) -> dict[str, str]:
    """Lines by request id; a line is written just after its answer."""
    for _ in range(100):
        lines = [json.loads(line) for line in app.log.read_text().splitlines() if line.startswith("{")]
        by_id = {line.get("request"): line["event"] for line in lines}
        if set(ids) <= set(by_id):
            return by_id
        time.sleep(0.1)
    raise AssertionError(app.log.read_text())


def test_lines(tmp_path, clips) -> None:
    with served(tmp_path) as app:
        with clips[0].open("rb") as file:
            private = ("a_very_private_name.flac", file)
            answer = httpx.post(f"{app.url}/api/v1/analyze", files={"file": private}, timeout=60)
        refused = httpx.post(f"{app.url}/api/v1/analyze", headers={"origin": "http://evil.example"})
        ids = [a.headers["x-request-id"] for a in (answer, refused)]
        lines = lines_of(app, ids)
        assert lines[ids[0]].startswith("POST /api/v1/analyze 200 ")
        assert lines[ids[1]].startswith("POST /api/v1/analyze 403 ")
        assert "a_very_private_name" not in app.log.read_text()
