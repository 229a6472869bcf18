"""Host, origin, token, size, closed routes."""

import httpx
import pytest
from starlette.websockets import WebSocketDisconnect


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:7860", 200), ("localhost:7860", 200), ("[::1]:7860", 200), ("192.168.1.7:7860", 200),
     ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403)],
)  # fmt: skip
def test_a_rebound_name_is_refused(client: httpx.Client, host: str, status: int) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "refused"),
    [({}, False), ({"origin": "http://127.0.0.1:7860"}, False), ({"origin": "http://evil.example"}, True),
     ({"origin": "null"}, True), ({"origin": "http://127.0.0.1:9999"}, True), ({"origin": "http://[bad"}, True),
     ({"sec-fetch-site": "cross-site"}, True), ({"sec-fetch-site": "same-origin"}, False)],
)  # fmt: skip
def test_other_sites_cannot_post(client: httpx.Client, headers: dict[str, str], refused: bool) -> None:
    answer = client.post("/gradio_api/upload", files={"files": ("a.txt", b"x")}, headers=headers)
    assert answer.status_code == (403 if refused else 200), answer.text
    if refused:
        assert answer.json()["error"]["code"] == "FORBIDDEN_ORIGIN"


def test_other_sites_cannot_open_a_socket(client: httpx.Client) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/x", headers={"origin": "http://evil.example"}):
        pass


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/file=https://example.org/x", "/gradio_api/file=HTTP://x.org",
     "/gradio_api/file%3Dhttp://x.org", "/gradio_api/file/http://x.org", "/gradio_api/proxy=http://x.org",
     "/monitoring", "/monitoring/summary"],
)  # fmt: skip
def test_no_proxy(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 403


def test_large_bodies(client: httpx.Client) -> None:
    big = b"x" * 3_000_000
    answer = client.post("/gradio_api/upload", files={"files": ("a.wav", big)})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "TOO_LARGE"

    def pieces():
        for _ in range(3):
            yield big

    answer = client.post(
        "/gradio_api/upload", content=pieces(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 413, "a body without a length is counted"


def test_headers_keep_everything_local(client: httpx.Client) -> None:
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]


def test_token(guarded: httpx.Client) -> None:
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/config").status_code == 401
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/api/v1/results").json()["error"]["code"] == "UNAUTHORIZED"
    assert guarded.get("/config", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert guarded.get("/config", headers={"authorization": "Bearer open sesame"}).status_code == 200
    with pytest.raises(WebSocketDisconnect), guarded.websocket_connect("/x"):
        pass


def test_login_page(guarded: httpx.Client) -> None:
    page = guarded.get("/", headers={"accept": "text/html", "accept-language": "zh-CN"})
    assert page.status_code == 401
    assert "令牌" in page.text
    wrong = guarded.post("/login", data={"token": "guess"}, headers={"accept-language": "en"})
    assert wrong.status_code == 401
    assert "not the token" in wrong.text
    right = guarded.post("/login", data={"token": "open sesame"}, follow_redirects=False)
    assert right.status_code == 303
    assert "open sesame" not in right.headers["set-cookie"]
    assert "HttpOnly" in right.headers["set-cookie"]
    assert guarded.get("/config").status_code == 200
    guarded.cookies.clear()
