"""The two hubs: which files of theirs are on disk already, whether they answer, and a download that cannot hang.

The hubs' own clients do the download, in a child process (``download.py``): it can be stopped at any moment, keeps
their imports out of this process, and what it got so far is continued next time.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from emotion_app.errors import BusyError, ModelError, StoreError
from emotion_app.models.catalog import Hub, KnownModel
from emotion_app.models.files import is_complete
from emotion_app.settings import Settings

Report = Callable[[float, str], None]  # fraction 0..1, one line for people

HUBS: tuple[Hub, ...] = ("modelscope", "huggingface")
ENDPOINTS: dict[Hub, tuple[tuple[str, ...], str]] = {  # variables that name another endpoint, and the default
    "modelscope": (("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"), "https://www.modelscope.cn"),
    "huggingface": (("HF_ENDPOINT",), "https://huggingface.co"),
}
FILES = ("config.yaml", "configuration.json", "tokens.txt", "model.pt", "example/*")
STALL_S = 60.0  # a download without a new byte for so long is given up; the next one continues it
DOWNLOAD_RECORD = "download.json"


@dataclass(frozen=True)
class Download:
    """``download.json`` beside downloaded files: where they came from."""

    hub: str
    repo: str
    revision: str


def order(first: Hub) -> tuple[Hub, ...]:
    """Both hubs, ``first`` first."""
    return (first, *(hub for hub in HUBS if hub != first))


def endpoint(hub: Hub) -> str:
    """Address of a hub, from its own environment variable or the public one."""
    names, default = ENDPOINTS[hub]
    value = next((os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), default)
    value = (value if "://" in value else f"https://{value}").rstrip("/")
    if not value.startswith(("http://", "https://")):
        raise ModelError("MODEL_OFFLINE", name=hub, hub=hub, reason=f"{value[:80]} is no web address")
    return value


def probe(hub: Hub, wait_s: float) -> str | None:
    """None when the hub answers within ``wait_s``, else why not. Follows the proxy settings of the environment.

    Any HTTP answer counts. Name look-up cannot be given a limit, so all of it runs beside and is left behind.
    """
    address = endpoint(hub)
    answer: queue.Queue[str | None] = queue.Queue(maxsize=1)

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "emotion-app"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=wait_s):  # noqa: S310 - http or https only, see endpoint
                answer.put(None)
        except urllib.error.HTTPError:
            answer.put(None)
        except (urllib.error.URLError, OSError, ValueError) as error:
            answer.put(str(getattr(error, "reason", error)) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - http.client's own tree: garbage instead of an answer
            answer.put(type(error).__name__)

    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    try:
        return answer.get(timeout=wait_s)
    except queue.Empty:
        return f"no answer within {wait_s:g} s"


def download_dir(settings: Settings, hub: Hub, repo: str) -> Path:
    """Where this program keeps what it downloads."""
    return settings.models_dir / "hub" / hub / repo.replace("/", "--")


def on_disk(repos: dict[Hub, str], settings: Settings) -> Path | None:
    """A complete copy that this program or the hubs' own clients left on this machine; nobody is asked."""
    for hub in order(settings.hub):
        repo = repos.get(hub)
        if repo:
            places = [
                download_dir(settings, hub, repo),
                *(_modelscope(repo) if hub == "modelscope" else _huggingface(repo)),
            ]
            found = next((place for place in places if is_complete(place)), None)
            if found is not None:
                return found
    return None


def _modelscope(repo: str) -> Iterator[Path]:
    """Every layout that the client has used for its cache, newest first."""
    owner, name = repo.split("/", 1)
    root = Path(os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope").expanduser()
    for base in (root, root / "hub"):
        snapshots = base / "models" / f"{owner}--{name}" / "snapshots"
        yield from _snapshots(snapshots, ("master", "main"))
        for spelled in dict.fromkeys((name, name.replace(".", "___"))):
            yield base / "models" / owner / spelled
            yield base / owner / spelled


def _huggingface(repo: str) -> Iterator[Path]:
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    root = Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()
    base = root / f"models--{repo.replace('/', '--')}"
    try:
        current = (base / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        current = ""
    yield from _snapshots(base / "snapshots", (current,) if current else ())


def _snapshots(root: Path, first: tuple[str, ...]) -> Iterator[Path]:
    yield from (root / name for name in first)
    try:
        others = sorted(
            (p for p in root.iterdir() if p.is_dir() and p.name not in first), key=lambda p: p.stat().st_mtime
        )
    except OSError:
        return
    yield from reversed(others)


def read_download(directory: Path) -> Download | None:
    """What ``download.json`` says, or None: HF's snapshot directories are named after their revision instead."""
    try:
        content = json.loads((directory / DOWNLOAD_RECORD).read_text(encoding="utf-8"))
        return Download(str(content["hub"]), str(content["repo"]), str(content["revision"]))
    except (OSError, ValueError, KeyError, TypeError):
        if directory.parent.name == "snapshots":
            hub = "huggingface" if directory.parent.parent.name.startswith("models--") else "modelscope"
            return Download(
                hub, directory.parent.parent.name.removeprefix("models--").replace("--", "/", 1), directory.name
            )
        return None


def fetch(
    known: KnownModel | str, settings: Settings, report: Report | None = None, cancel: threading.Event | None = None
) -> Path:
    """Download a model from the first hub that answers and has it; what an earlier attempt got is continued.

    Args:
        known: a known model, or a hub id that both hubs are asked for.
        report: called with fraction and one line for people.
        cancel: set it to stop within half a second.

    Raises:
        ModelError: MODEL_OFFLINE naming each hub and what it said.
        StoreError: DISK_FULL, CANNOT_SAVE.
        BusyError: CANCELLED.
    """
    name = known if isinstance(known, str) else known.name
    if settings.offline:
        raise ModelError("MODEL_OFFLINE", name=name, hub="hub", reason="offline mode is set")
    said: list[str] = []
    for hub in order(settings.hub):
        repo = known if isinstance(known, str) else known.repo(hub)
        if not repo:
            continue
        reason = probe(hub, settings.hub_connect_s)
        if reason is None:
            try:
                return _download(hub, repo, settings, report or _silent, cancel)
            except _Refused as error:
                reason = str(error)
        said.append(f"{hub}: {reason}")
    hubs = " / ".join(line.split(":")[0] for line in said) or "hub"
    raise ModelError("MODEL_OFFLINE", name=name, hub=hubs, reason="; ".join(said) or "no hub has it")


class _Refused(Exception):
    """This hub did not deliver; the other one may."""


def _silent(fraction: float, line: str) -> None:
    pass


def _download(hub: Hub, repo: str, settings: Settings, report: Report, cancel: threading.Event | None) -> Path:
    target = download_dir(settings, hub, repo)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("CANNOT_SAVE", reason=f"{target}: {error.strerror}") from error
    job = json.dumps(
        {
            "hub": hub,
            "repo": repo,
            "directory": str(target),
            "files": FILES,
            "keep_free_mb": settings.limits.disk_free_mb,
        }
    )
    environment = dict(
        os.environ,
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_DOWNLOAD_TIMEOUT="20",
        HF_HUB_ETAG_TIMEOUT="10",
        MODELSCOPE_API_TIMEOUT="20",
        PYTHONUNBUFFERED="1",
        PYTHONIOENCODING="utf-8",
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "emotion_app.models.download"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        encoding="utf-8",
        cwd=_package_root(),
    )
    try:
        return _follow(child, job, hub, target, report, cancel)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _follow(
    child: subprocess.Popen[str], job: str, hub: Hub, target: Path, report: Report, cancel: threading.Event | None
) -> Path:
    """Read the child's lines: progress, the end, or an error; a stall or a cancel ends it."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in child.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="hub-download", daemon=True).start()
    child.stdin.write(job)
    child.stdin.close()
    done, moved = -1, time.monotonic()
    while True:
        if cancel is not None and cancel.is_set():
            raise BusyError("CANCELLED")
        try:
            line = lines.get(timeout=0.25)
        except queue.Empty:
            line = ""
        if line is None:
            raise _Refused(f"the download ended early (exit {child.wait()})")
        event = _event(line)
        if event.get("error") == "disk":
            raise StoreError("DISK_FULL", free_mb=shutil.disk_usage(target).free / 1e6, path=str(target))
        if "error" in event:
            raise _Refused(str(event["error"]))
        if "ready" in event:
            if not is_complete(target):
                raise _Refused("config.yaml, tokens.txt or model.pt is not there")
            return target
        if "done" in event:
            if event["done"] != done:
                done, moved = event["done"], time.monotonic()
            total = max(1, event["total"])
            report(min(1.0, done / total), f"{hub}: {done / 1e6:.0f} / {total / 1e6:.0f} MB")
        if time.monotonic() - moved > STALL_S:
            raise _Refused(
                f"no data for {STALL_S:.0f} s at {max(0, done) / 1e6:.0f} MB; the next attempt continues there"
            )


def _event(line: str) -> dict[str, object]:
    """One JSON line of the child; whatever else the clients print is not for us."""
    try:
        content = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        content = {}
    return content if isinstance(content, dict) else {}


def _package_root() -> str:
    return str(Path(__file__).resolve().parents[2])
