"""The process: address, port, token, end, and calls by programs."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from emotion_app.errors import ConfigError
from emotion_app.settings import Settings
from emotion_app.web.server import open_port
from tests.served import Served, served


def test_port_taken_is_said_with_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            open_port(Settings(port=port))
    error = caught.value
    assert error.code == "PORT_TAKEN"
    assert str(port) in error.text("zh")
    assert int(error.facts["other"]) != port


def test_port_taken_on_the_command_line_is_quick_and_clear() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "emotion_app", "serve", "--port", port],
            capture_output=True, text=True, timeout=60, env={**os.environ, "EMOTION_LANG": "en"},
        )  # fmt: skip
    assert done.returncode == 69
    assert f"Port {port} on 127.0.0.1 is taken" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_beyond_loopback_a_token_is_demanded(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_port(Settings(host=host, port=0))
    assert caught.value.code == "TOKEN_NEEDED"


def test_with_a_token_it_listens() -> None:
    open_port(Settings(host="0.0.0.0", port=0, token=SecretStr("x"))).close()


def test_nothing_heavy_before_the_port() -> None:
    code = "import sys, emotion_app.web.server; print([m for m in ('gradio', 'torch', 'fastapi') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_address_and_probes(server: Served) -> None:
    assert server.url in server.log.read_text()
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/readyz").json()["ready"] is True
    assert "emotion_requests" in httpx.get(f"{server.url}/metrics").text


def test_gradio_client_calls_by_the_stable_name(server: Served, clips: list[Path], tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    client = Client(server.url, verbose=False, download_files=str(tmp_path))
    result, files = client.predict(file=handle_file(clips[0]), granularity="frame", embedding="utterance", model="auto",
                                   api_name="/analyze")  # fmt: skip
    assert result["granularity"] == "frame"
    assert abs(sum(result["scores"].values()) - 1) < 1e-5
    folder = server.outputs / result["folder"]
    assert {Path(f).name for f in files} == {p.name for p in folder.iterdir()}
    for file in files:
        assert Path(file).read_bytes() == (folder / Path(file).name).read_bytes()


def test_curl_calls_the_endpoint(server: Served, clips: list[Path]) -> None:
    def curl(*args: str) -> str:
        return subprocess.run(["curl", "-sS", *args], capture_output=True, text=True, check=True, timeout=60).stdout

    path = json.loads(curl("-F", f"files=@{clips[0]}", f"{server.url}/gradio_api/upload"))[0]
    body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "utterance", "none", "lite"]})
    started = json.loads(
        curl("-H", "Content-Type: application/json", "-d", body, f"{server.url}/gradio_api/call/analyze")
    )
    answer = curl("-N", f"{server.url}/gradio_api/call/analyze/{started['event_id']}")
    assert "event: complete" in answer
    data = json.loads(re.findall(r"^data: (.*)$", answer, re.M)[-1])
    assert data[0]["emotion"] in data[0]["scores"]


def test_errors_reach_programs_with_their_code(server: Served, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound here")
    client = Client(server.url, verbose=False)
    with pytest.raises(AppError, match="UNDECODABLE"):
        client.predict(file=handle_file(bad), api_name="/analyze")


def test_zip_equals_the_folder(server: Served, clips: list[Path]) -> None:
    with clips[0].open("rb") as file:
        done = httpx.post(
            f"{server.url}/api/v1/analyze", files={"file": ("a.flac", file)}, data={"save": "true"}, timeout=60
        )
    name = done.json()["id"]
    answer = httpx.get(f"{server.url}/api/v1/results/{name}.zip")
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        inside = {Path(n).name: archive.read(n) for n in archive.namelist()}
    assert inside == {p.name: p.read_bytes() for p in (server.outputs / name).iterdir()}


def test_sigterm_with_a_page_open(tmp_path: Path) -> None:
    """An open page holds its event stream for ever; the process must end all the same."""
    with served(tmp_path) as running:
        with httpx.stream("GET", f"{running.url}/gradio_api/heartbeat/abc", timeout=30) as open_page:
            assert open_page.status_code == 200
            next(open_page.iter_raw())
            seconds = running.stop()
        assert seconds < 3
        assert running.process.returncode in (0, -15)
        assert not list(tmp_path.glob("emotion-pages-*")), "uploads are gone with the process"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old = tmp_path / f"emotion-pages-{gone.pid}-abc"
    old.mkdir()
    (old / "voice.wav").write_bytes(b"private")
    with served(tmp_path):
        deadline = time.monotonic() + 5
        while old.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not old.exists()
