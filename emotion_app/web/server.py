"""One process, one port: FastAPI with REST, probes and (last) the Gradio page, run by uvicorn."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from emotion_app.errors import ConfigError, EmotionError
from emotion_app.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from emotion_app.analyzer import Analyzer
    from emotion_app.metrics import Metrics
    from emotion_app.store import Store

log = logging.getLogger(__name__)
STOP_S = 1  # open pages hold their event stream for ever; without a bound SIGTERM never ended the process (measured)
BACKLOG = 2048
END_S = 1.5  # from the signal to the end, whatever a decoder, a driver or an open page does
UPLOADS_PREFIX = "emotion-pages-"  # of the folder for uploads, followed by the process id
PORTS_TRIED = 20  # when proposing another port


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Everything that can be wrong with address and token is said before anything heavy is imported.

    Raises:
        ConfigError: PORT_TAKEN, TOKEN_NEEDED, BAD_SETTING.
    """
    listener = open_port(settings)
    try:
        import uvicorn

        from emotion_app.analyzer import Analyzer
        from emotion_app.store import Store

        for chatty in ("matplotlib", "httpx", "asyncio"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        analyzer, store = Analyzer(settings), Store(settings.outputs_dir, settings.limits)
        swept = store.sweep()
        if swept:
            log.warning("removed %d unfinished result folders of an earlier run", swept)
        app = create_app(settings, analyzer, store)
        say_address(settings, listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=STOP_S,
            server_header=False,
            ws_max_size=settings.limits.stream_message_kb * 1024 * 2,
        )
        signal.signal(signal.SIGTERM, _leave)  # uvicorn stops in order, then raises the signal again
        server = uvicorn.Server(config)
        _bound_the_end(server)
        server.run(sockets=[listener])
    finally:
        listener.close()
        remove_uploads()


def create_app(settings: Settings, analyzer: Analyzer, store: Store, metrics: Metrics | None = None) -> FastAPI:
    """The application; it closes ``analyzer`` when it ends.

    Args:
        settings: how to run.
        analyzer: does the work for every door.
        store: keeps the results.
        metrics: counters; own ones by default.
    """
    prepare_gradio()
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles

    from emotion_app.metrics import Metrics
    from emotion_app.web import health, observe, rest
    from emotion_app.web.guard import Guard
    from emotion_app.web.login import Access, login_router
    from emotion_app.web.problems import on_problem
    from emotion_app.web.request_log import RequestLog
    from emotion_app.web.sockets import add_sockets
    from emotion_app.web.ui.jobs import Jobs
    from emotion_app.web.ui.mount import mount_page
    from emotion_app.web.ui.sounds import EXAMPLES_DIR
    from emotion_app.web.ui.theme import STATIC

    metrics = metrics or Metrics()
    jobs = Jobs(analyzer, store, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=_warm, args=(analyzer, settings.preload), daemon=True).start()
        yield
        await manager.close()
        jobs.close()
        analyzer.close()

    app = FastAPI(title="Speech Emotion Recognition", docs_url=None, redoc_url=None, lifespan=lifespan)
    access = Access(settings.token)
    app.add_exception_handler(EmotionError, on_problem)
    app.include_router(health.make_router(analyzer))
    app.include_router(observe.make_router(analyzer, metrics))
    app.include_router(rest.make_router(settings, analyzer, store, metrics))
    app.include_router(login_router(access))
    app.mount("/app-static", StaticFiles(directory=STATIC))
    if EXAMPLES_DIR.is_dir():
        app.mount("/app-examples", StaticFiles(directory=EXAMPLES_DIR))
    manager = add_sockets(app, analyzer, metrics)
    metrics.watch(lambda: observe.stream_readings(manager.totals()))
    mount_page(app, settings, jobs)  # last: it answers every path that is left
    app.add_middleware(Guard, settings=settings, access=access)
    app.add_middleware(RequestLog)  # outermost: it sees what the guard refuses
    return app


def prepare_gradio() -> None:
    """Environment that Gradio reads when it is imported: no telemetry, and a private folder for uploads.

    The folder is named after this process; folders of processes that were killed are removed here.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    root = Path(tempfile.gettempdir())
    for old in root.glob(f"{UPLOADS_PREFIX}*-*"):
        pid = old.name.split("-")[2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    if f"{UPLOADS_PREFIX}{os.getpid()}-" not in os.environ.get("GRADIO_TEMP_DIR", ""):
        folder = tempfile.mkdtemp(prefix=f"{UPLOADS_PREFIX}{os.getpid()}-")  # 0700: uploads are private
        os.environ["GRADIO_TEMP_DIR"] = folder


def remove_uploads() -> None:
    """Take away what was uploaded to this process."""
    folder = os.environ.get("GRADIO_TEMP_DIR", "")
    if f"{UPLOADS_PREFIX}{os.getpid()}-" in folder:
        shutil.rmtree(folder, ignore_errors=True)


def open_port(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        ConfigError: TOKEN_NEEDED beyond loopback, PORT_TAKEN with a port that is free, BAD_SETTING.
    """
    if settings.token is None and not is_loopback(settings.host):
        raise ConfigError("TOKEN_NEEDED", host=settings.host)
    try:
        return _listen(settings.host, settings.port)
    except OSError as error:
        if isinstance(error, socket.gaierror) or not _in_use(error):
            raise ConfigError("BAD_SETTING", reason=f"{settings.host}:{settings.port}: {error.strerror}") from error
        raise ConfigError("PORT_TAKEN", host=settings.host, port=settings.port, other=_free_port(settings)) from error


def is_loopback(host: str) -> bool:
    """True for an address that only this machine can reach.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def say_address(settings: Settings, port: int) -> None:
    """Tell the terminal where the page is."""
    host = settings.host.strip("[]")
    shown = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    sys.stdout.write(f"\n  语音情感识别 · Speech Emotion Recognition\n  {url}\n  Ctrl+C: 停止 / stop\n\n")
    sys.stdout.flush()


def _leave(*_: object) -> None:
    raise SystemExit(0)


def _bound_the_end(server: uvicorn.Server) -> None:
    """The process ends END_S after the first signal at the latest; results are published whole or not at all."""
    in_order = server.handle_exit

    def end() -> None:
        remove_uploads()
        os._exit(0)

    def on_signal(number: int, frame: FrameType | None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # tells of every page that was still open
        watchdog = threading.Timer(END_S, end)
        watchdog.daemon = True
        watchdog.start()
        in_order(number, frame)

    server.handle_exit = on_signal  # type: ignore[method-assign]


def _listen(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, proto)
    try:
        if os.name != "nt":  # there it would let two processes share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _in_use(error: OSError) -> bool:
    import errno

    return error.errno == errno.EADDRINUSE


def _free_port(settings: Settings) -> int:
    for port in range(settings.port + 1, min(settings.port + PORTS_TRIED, 65535)):
        with contextlib.suppress(OSError):
            _listen(settings.host, port).close()
            return port
    return settings.port + 1


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _warm(analyzer: Analyzer, preload: bool) -> None:
    """Beside the first page load: what would make the first answer slow."""
    if preload:
        try:
            analyzer.preload()
        except EmotionError as error:  # the page and /readyz show it; a request tries again
            log.warning("preload: %s", error)
    from emotion_app import charts

    charts.warm()
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it again took 0.2 s, in the middle of somebody's sentence
