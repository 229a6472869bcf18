"""Nobody fetches files of this machine through the page (regression: mounted Gradio skips its own path check)."""

import json
from pathlib import Path

import httpx
import pytest

from emotion_app.errors import AccessError, RequestError
from emotion_app.web.ui.sounds import load_examples, resolve_sound, uploaded


def call(client: httpx.Client, endpoint: str, data: list[object]) -> str:
    """Gradio's event stream for one call, as text."""
    started = client.post(f"/gradio_api/call/{endpoint}", json={"data": data})
    if started.status_code != 200:
        return started.text
    return client.get(f"/gradio_api/call/{endpoint}/{started.json()['event_id']}").text


@pytest.mark.parametrize("kind", ["meta", "bare", "url"])
def test_a_foreign_path_is_refused_by_the_endpoint(client: httpx.Client, canary: Path, kind: str) -> None:
    file: dict[str, object] = {"path": str(canary)}
    if kind == "meta":
        file["meta"] = {"_type": "gradio.FileData"}
    if kind == "url":
        file = {"url": f"file://{canary}", "path": str(canary), "meta": {"_type": "gradio.FileData"}}
    answer = call(client, "analyze", [file, "utterance", "none", "lite"])
    assert "event: error" in answer or "error" in answer.lower()
    assert "event: complete" not in answer
    assert "UNDECODABLE" not in answer, "the file was read"
    assert canary.name not in answer


def test_a_foreign_path_is_refused_by_the_page(client: httpx.Client, canary: Path) -> None:
    """The page's own handler, called the way a browser calls it."""
    config = client.get("/config").json()
    handler = next(d for d in config["dependencies"] if d["api_name"] == "page_analyze")
    session = "abcdefgh123"
    sound = {"path": str(canary), "name": "x.wav"}
    data = ["en", sound, "utterance", False, "lite", ""]
    joined = client.post(
        "/gradio_api/queue/join", json={"data": data, "fn_index": handler["id"], "session_hash": session}
    )
    assert joined.status_code == 200, joined.text
    said = ""
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            said += line
            if "process_completed" in line:
                break
    assert "FORBIDDEN_PATH" in said
    assert not list(
        (Path(client.app.state.outputs) if hasattr(client.app.state, "outputs") else canary.parent).glob("outputs_*")
    )


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "outputs", "../../etc/passwd"])
def test_gradio_hands_out_no_foreign_file(client: httpx.Client, path: str) -> None:
    assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_an_upload_is_taken_and_only_an_upload(tmp_path: Path, canary: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    inside = uploads / "a.wav"
    inside.write_bytes(b"x")
    link = uploads / "link.wav"
    link.symlink_to(canary)
    assert uploaded(str(inside), uploads) == inside
    for path in (
        str(canary),
        str(link),
        f"{uploads}/../{canary.name}",
        str(uploads),
        "",
        "a\0b",
        f"{uploads}/none.wav",
    ):
        with pytest.raises(AccessError):
            uploaded(path, uploads)


def test_examples_are_named_not_pathed(tmp_path: Path) -> None:
    examples = load_examples()
    assert examples
    assert resolve_sound({"example": examples[0].path.name}, examples, tmp_path).path == examples[0].path
    for payload, code in (({"example": "../clips.json"}, "NOT_FOUND"), (None, "NO_INPUT"), ({}, "NO_INPUT"),
                          ({"path": 3}, "NO_INPUT"), ("x", "NO_INPUT")):  # fmt: skip
        with pytest.raises(RequestError) as caught:
            resolve_sound(payload, examples, tmp_path)
        assert caught.value.code == code


def test_only_listed_models(client: httpx.Client, clips: list[Path], tmp_path: Path) -> None:
    """A path or hub id from a client would make the server load what it names."""
    with clips[0].open("rb") as file:
        path = client.post("/gradio_api/upload", files={"files": ("a.flac", file)}).json()[0]
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for model in (str(tmp_path), "someone/something", "https://example.org/m"):
        assert "BAD_OPTION" in call(client, "analyze", [data, "utterance", "none", model])


def test_public_endpoints(client: httpx.Client) -> None:
    """Nothing of the page's own handlers; ``/analyze`` keeps its inputs."""
    info = client.get("/gradio_api/info").json()
    assert list(info["named_endpoints"]) == ["/analyze"]
    names = [p["parameter_name"] for p in info["named_endpoints"]["/analyze"]["parameters"]]
    assert names == ["file", "granularity", "embedding", "model"]
    assert json.dumps(info).count("page_analyze") == 0
