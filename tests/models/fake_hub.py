"""A hub on 127.0.0.1 that speaks enough of ModelScope's and Hugging Face's protocol for their real clients."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves one directory as one repository.

    ``cut_after``: bytes of model.pt after which the line goes dead (None: never). ``stall``: never send model.pt.
    ``spoil``: send other bytes than the listing's hash promises.
    """

    def __init__(self, directory: Path, repo: str) -> None:
        self.directory, self.repo = directory, repo
        self.cut_after: int | None = None
        self.stall = self.spoil = False
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.sent = 0
        self.released = threading.Event()

    def files(self) -> list[tuple[str, bytes]]:
        return [
            (str(p.relative_to(self.directory)), p.read_bytes())
            for p in sorted(self.directory.rglob("*"))
            if p.is_file()
        ]


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            if path == f"/api/v1/models/{hub.repo}/repo/files":
                entries = [
                    {
                        "Path": n,
                        "Name": n,
                        "Type": "blob",
                        "Size": len(b),
                        "Sha256": hashlib.sha256(b).hexdigest(),
                        "Revision": COMMIT,
                        "IsLFS": n == "model.pt",
                    }
                    for n, b in hub.files()
                ]
                return self.json(
                    {
                        "Code": 200,
                        "Success": True,
                        "Message": "",
                        "Data": {"Files": entries, "TotalCount": len(entries)},
                    }
                )
            if path == f"/api/v1/models/{hub.repo}/revisions":
                found = {"RevisionMap": {"Branches": [{"Revision": "master"}], "Tags": []}}
                return self.json({"Code": 200, "Success": True, "Data": found})
            if path == f"/api/v1/models/{hub.repo}":
                return self.json(
                    {
                        "Code": 200,
                        "Success": True,
                        "Data": {"Path": hub.repo.split("/")[0], "Name": hub.repo.split("/")[1]},
                    }
                )
            if path == f"/api/v1/models/{hub.repo}/repo":
                return self.file(query["FilePath"][0], body)
            if path.startswith(f"/api/models/{hub.repo}"):
                return self.huggingface_api(path)
            if path.startswith(f"/{hub.repo}/resolve/"):
                return self.file(path.split("/resolve/", 1)[1].split("/", 1)[1], body)
            if path == "/":
                return self.json({})
            return self.json({"Code": 404, "Message": "not found"}, 404)

        def huggingface_api(self, path: str) -> None:
            listed = [(n, b, hashlib.sha256(b).hexdigest()) for n, b in hub.files()]
            if "/tree/" in path:
                return self.json(
                    [
                        {"type": "file", "oid": s[:40], "size": len(b), "path": n}
                        | ({"lfs": {"oid": s, "size": len(b), "pointerSize": 134}} if n == "model.pt" else {})
                        for n, b, s in listed
                    ]
                )
            siblings = [
                {"rfilename": n, "size": len(b), "blobId": s[:40]}
                | ({"lfs": {"sha256": s, "size": len(b), "pointerSize": 134}} if n == "model.pt" else {})
                for n, b, s in listed
            ]
            return self.json(
                {"id": hub.repo, "modelId": hub.repo, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}
            )

        def json(self, content: object, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def file(self, name: str, body: bool) -> None:
            data = dict(hub.files()).get(name)
            if data is None:
                return self.json({"Code": 404}, 404)
            digest = hashlib.sha256(data).hexdigest()
            start, stop = 0, len(data)
            wanted = self.headers.get("Range")
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, stop = int(first), int(last) + 1 if last else len(data)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Linked-Etag", f'"{digest}"')
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.end_headers()
            if body:
                self.send(name, data[start:stop], start)
            return None

        def send(self, name: str, data: bytes, start: int) -> None:
            if name != "model.pt":
                self.wfile.write(data)
                return
            if hub.stall:
                hub.released.wait(60)
                self.close_connection = True
                return
            if hub.spoil:
                data = bytes(len(data))
            if hub.cut_after is not None and start < hub.cut_after < start + len(data):
                self.wfile.write(data[: hub.cut_after - start])
                hub.sent += hub.cut_after - start
                self.wfile.flush()
                hub.released.wait(60)  # a line that went dead: neither bytes nor an end
                self.close_connection = True
                return
            self.wfile.write(data)
            hub.sent += len(data)

    return Handler


@contextmanager
def serve(hub: FakeHub):
    """Run it; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
