"""Log lines: one a request, with the id that the client got; no file names."""

import json

import httpx

from tests.serving import serving


def test_lines(tmp_path, clips) -> None:
    with serving(tmp_path) as served:
        with clips[0].open("rb") as file:
            secret = ("a_very_private_name.flac", file)
            answer = httpx.post(f"{served.url}/api/v1/analyze", files={"file": secret}, timeout=60)
        refused = httpx.post(f"{served.url}/api/v1/analyze", headers={"origin": "http://evil.example"})
    lines = [json.loads(line) for line in served.log.read_text().splitlines() if line.startswith("{")]
    by_id = {line.get("request"): line["event"] for line in lines}
    assert by_id[answer.headers["x-request-id"]].startswith("POST /api/v1/analyze 200 ")
    assert by_id[refused.headers["x-request-id"]].startswith("POST /api/v1/analyze 403 ")
    assert "a_very_private_name" not in served.log.read_text()
