"""REST against the running server: same numbers as the library, every failure with its status and code."""

import io
import json
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from emotion_app.analyzer import Analyzer, Options
from tests.served import served


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made


def post(client, path, **fields):
    with path.open("rb") as file:
        return client.post("/api/v1/analyze", files={"file": (path.name, file)}, data=fields)


def test_same_numbers_as_the_library(client, settings, clips) -> None:
    analyzer = Analyzer(settings)
    for path in clips[:3]:
        answer = post(client, path, granularity="frame", embedding="frame").json()
        result = analyzer.analyze(path, Options("frame", "frame"))
        np.testing.assert_allclose(list(answer["scores"].values()), result.prediction.scores, atol=1e-6)
        np.testing.assert_allclose(answer["frames"]["scores"], result.frames.scores, atol=1e-4)
        np.testing.assert_allclose(answer["embedding"]["values"], result.embedding, rtol=1e-4, atol=1e-5)
        assert answer["source"]["name"] == path.name and answer["warnings"]
    analyzer.close()


def test_curl(server, clips) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-F", f"file=@{clips[0]}", f"{server.url}/api/v1/analyze"], capture_output=True, text=True
    )
    assert set(json.loads(done.stdout)) >= {"emotion", "confidence", "scores", "granularity", "timestamp"}


def test_kept_results(client, server, clips) -> None:
    name = post(client, clips[0], granularity="frame", save="true").json()["id"]
    folder = server.outputs / name
    assert name in [r["id"] for r in client.get("/api/v1/results").json()]
    assert client.get(f"/api/v1/results/{name}").json()["emotion"]
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/results/{name}.zip").content)) as archive:
        members = {n.rsplit("/", 1)[-1]: archive.read(n) for n in archive.namelist()}
    assert members == {p.name: p.read_bytes() for p in folder.iterdir()}
    for path in folder.iterdir():
        assert client.get(f"/api/v1/results/{name}/{path.name}").content == path.read_bytes()
    assert client.delete(f"/api/v1/results/{name}").status_code == 204
    assert not folder.exists() and client.get(f"/api/v1/results/{name}").status_code == 404


@pytest.mark.parametrize(
    ("content", "fields", "status", "code"),
    [
        (b"", {}, 422, "EMPTY"),
        (b"no sound at all", {}, 415, "UNDECODABLE"),
        (None, {"granularity": "word"}, 422, "BAD_OPTION"),
        (None, {"model": "nonsense"}, 404, "MODEL_UNKNOWN"),
        (None, {"model": "/tmp"}, 404, "MODEL_UNKNOWN"),
        (None, {"model": "somebody/some_repository"}, 404, "MODEL_UNKNOWN"),
        (None, {"model": "emotion2vec_plus_large"}, 503, "MODEL_MISSING"),
        (b"\0" * 60_000_000, {}, 413, "TOO_LARGE"),
    ],
)
def test_failures(client, clips, content, fields, status, code) -> None:
    content = clips[0].read_bytes() if content is None else content
    answer = client.post("/api/v1/analyze", files={"file": ("x.wav", content)}, data=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["zh"] and "Traceback" not in answer.text


@pytest.mark.parametrize("name", ["outputs_20261121_000000", "..", "%2e%2e", "outputs_1", "..%2f..%2fetc%2fpasswd"])
@pytest.mark.parametrize("file", ["result.json", "../../etc/passwd", "%2e%2e%2fsecret"])
def test_nothing_outside_the_results(client, name, file) -> None:
    assert client.get(f"/api/v1/results/{name}/{file}").status_code in (403, 404, 422)


def test_overload_is_told(tmp_path_factory, clips) -> None:
    """Four times what fits: every answer is 200 or 503 with Retry-After, and the queue is empty afterwards."""
    limits = {"EMOTION_LIMITS__QUEUE_REQUESTS": "2", "EMOTION_LIMITS__CACHE_MB": "0"}
    folder = tmp_path_factory.mktemp("busy")
    with served(folder, **limits) as app, httpx.Client(base_url=app.url, timeout=60) as c:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: post(c, clips[i % len(clips)]), range(32)))
        assert {a.status_code for a in answers} <= {200, 503} and any(a.status_code == 200 for a in answers)
        assert all("retry-after" in a.headers for a in answers if a.status_code == 503)
        assert "emotion_queue_requests 0.0" in c.get("/metrics").text
        assert post(c, clips[0]).status_code == 200
