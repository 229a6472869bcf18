"""All live sessions of a server: who may begin, who comes back, when each ends, and what they add up to."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from emotion_app import logs
from emotion_app.analyzer import Analyzer
from emotion_app.errors import BusyError, EmotionError, ModelError, RequestError
from emotion_app.labels import KEYS
from emotion_app.metrics import Metrics
from emotion_app.models.loader import known_models, model_path
from emotion_app.pool import Loaded
from emotion_app.streaming.account import NOTHING, Totals, add
from emotion_app.streaming.alerts import parse_rule
from emotion_app.streaming.events import (
    Alert,
    EmotionResult,
    ErrorEvent,
    Event,
    SessionCreated,
    SessionResumed,
    error_event,
)
from emotion_app.streaming.live import Link, Live, Shared
from emotion_app.streaming.protocol import Config, SessionUpdate
from emotion_app.streaming.session import Session
from emotion_app.streaming.webhook import Webhook
from emotion_app.vad import SileroVad, shared_network

log = logging.getLogger(__name__)

TICK_S = 0.25  # how often deadlines are looked at while there is any session
GOODBYE_S = 1.0  # at shutdown: how long clients get to take their last events


class StreamManager:
    """Use from one event loop.

    Args:
        analyzer: models and queue, shared with every other door.
        metrics: where events are counted.

    Attributes:
        webhook: where alerts go, or None.

    Raises:
        ConfigError: BAD_SETTING: an alert rule or the webhook of the settings is not possible.
    """

    def __init__(self, analyzer: Analyzer, metrics: Metrics | None = None) -> None:
        settings = analyzer.settings
        self._analyzer = analyzer
        self._limits = settings.limits
        self._metrics = metrics
        self._rules = tuple(parse_rule(rule) for rule in settings.alerts)
        self.webhook = Webhook(settings) if settings.webhook_url else None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="live")
        self._shared = Shared(analyzer, self._threads, self._told)
        self._network: SileroVad | None = None
        self._sessions: dict[str, Live] = {}
        self._loading: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._gone = NOTHING
        self._started = self._resumed = self._refused = self._slow = self._events = self._merged = 0
        self._closed = False
        self._latest = self._sum()

    # -- beginning, coming back, ending --------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """True when no further session can begin."""
        return sum(not live.over for live in self._sessions.values()) >= self._limits.stream_sessions

    def refusal(self) -> BusyError:
        """Counted: what a client is told who finds every place taken."""
        self._refused += 1
        return BusyError("AT_CAPACITY", sessions=self._limits.stream_sessions)

    async def start(self, config: Config, link: Link) -> Live:
        """A new session that ``link`` is connected to.

        Raises:
            BusyError: AT_CAPACITY, SHUTTING_DOWN.
            RequestError: BAD_OPTION, BAD_MESSAGE.
            ModelError: the speech detector is not installed.
        """
        if self._closed:
            raise BusyError("SHUTTING_DOWN")
        if self.full:
            raise self.refusal()
        if self._network is None:
            self._network = await asyncio.get_running_loop().run_in_executor(self._threads, shared_network)
            if self.full:
                raise self.refusal()
        watched = config.model_copy(update={"alerts": (*self._rules, *config.alerts)})
        session = Session(watched, self._limits, self._network, time.monotonic())
        live = Live(secrets.token_urlsafe(12), secrets.token_urlsafe(24), session, self._shared)
        self._sessions[live.name] = live
        self._started += 1
        self._tick_from_now_on()
        limits = self._limits
        live.tell(
            SessionCreated(
                secret=live.secret,
                config=watched,
                labels=KEYS,
                resume_s=limits.stream_resume_s,
                idle_s=limits.stream_idle_s,
                session_s=limits.stream_session_s,
            )
        )
        logs.bind(session=live.name)  # for every further line of this connection
        log.info("session started")
        live.attach(link)
        self._load(live)
        return live

    def resume(self, name: str, secret: str, last_event_id: int, link: Link) -> Live:
        """Go on with a session over ``link``; what the client has not seen is sent again.

        Raises:
            RequestError: SESSION_UNKNOWN, for a wrong secret too: a stranger learns nothing.
        """
        live = self._sessions.get(name)
        right = hmac.compare_digest((live.secret if live else secrets.token_urlsafe(24)).encode(), secret.encode())
        if live is None or not right or live.over:
            raise RequestError("SESSION_UNKNOWN")
        self._resumed += 1
        logs.bind(session=name)
        log.info("session resumed")
        replayed, lost = live.outbox.rewind(last_event_id)
        live.attach(
            link,
            SessionResumed(
                session_id=name,
                received_input=live.session.received_input,
                replayed=replayed,
                lost=lost,
                config=live.session.config,
            ),
        )
        return live

    def update(self, live: Live, message: SessionUpdate) -> None:
        """Change a session's configuration.

        Raises:
            RequestError: see ``Session.update``.
        """
        if "alerts" in message.model_fields_set:  # those of the settings always stay
            message = message.model_copy(update={"alerts": (*self._rules, *message.alerts)})
        if live.update(message):
            live.unload()
            self._load(live)

    def leave(self, live: Live, link: Link, *, meant: bool) -> None:
        """A connection is gone: lost (the session waits for it), or closed on purpose (the session ends)."""
        if live.link is not link:
            return
        live.detach(link)
        if meant:
            live.end("closed by the client")

    async def close(self) -> None:
        """Tell everybody, end everything."""
        self._closed = True
        for live in list(self._sessions.values()):
            live.fail(BusyError("SHUTTING_DOWN"), fatal=True)
            live.end("SHUTTING_DOWN")
        until = time.monotonic() + GOODBYE_S
        while time.monotonic() < until and any(live.link for live in self._sessions.values()):
            await asyncio.sleep(0.02)
        if self._ticker is not None:
            self._ticker.cancel()
        for live in list(self._sessions.values()):
            self._forget(live)
        if self.webhook is not None:
            self.webhook.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- numbers -------------------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """The numbers now; for other threads those of the last tick, as a session may be in the middle of a change."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._latest
        return self._sum()

    def _sum(self) -> Totals:
        stats, lives = self._gone, list(self._sessions.values())
        for live in lives:
            stats = add(stats, live.session.stats())
        return Totals(
            sessions=len(lives),
            connected=sum(live.link is not None for live in lives),
            started=self._started,
            resumed=self._resumed,
            refused=self._refused,
            slow=self._slow + sum(live.slow for live in lives),
            events=self._events,
            merged=self._merged + sum(live.outbox.merged for live in lives),
            stats=stats,
        )

    def _told(self, event: Event) -> None:
        self._events += 1
        if isinstance(event, Alert) and self.webhook is not None:
            self.webhook.post(event)
        if self._metrics is None:
            return
        if isinstance(event, EmotionResult):
            self._metrics.window(event.emotion, event.trigger, event.latency_ms / 1000)
        elif isinstance(event, ErrorEvent):
            self._metrics.failed("stream", RequestError(event.code))

    # -- models --------------------------------------------------------------------------------------------------

    def _load(self, live: Live) -> None:
        task = asyncio.create_task(self._get_model(live), name=f"model of {live.name}")
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def _get_model(self, live: Live) -> None:
        model = live.session.config.model
        loop = asyncio.get_running_loop()
        try:
            live.ready(await loop.run_in_executor(self._threads, self._loaded, model))
        except EmotionError as error:
            live.give_up(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.error("the model of a session could not be loaded", exc_info=error)
            live.give_up(
                ModelError("MODEL_BROKEN", name=model or self._analyzer.settings.model, reason=str(error)[:200])
            )

    def _loaded(self, model: str | None) -> Loaded:
        """In a thread. A stranger may choose among known models that are here; a path or a download is not theirs."""
        if model is not None:
            known = {m.name: m for m in known_models()}
            if model not in known and model != "auto":
                raise ModelError("MODEL_UNKNOWN", name=model, known=", ".join(known))
            settings = self._analyzer.settings
            if model in known and known[model].family != "lite" and model_path(model, settings) is None:
                raise ModelError("MODEL_MISSING", name=model)
        loaded = self._analyzer.pool.get(model)
        _ = loaded.engine.interim  # made here, in a thread
        return loaded

    # -- time ----------------------------------------------------------------------------------------------------

    def _tick_from_now_on(self) -> None:
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick(), name="live sessions")

    async def _tick(self) -> None:
        while self._sessions:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if any(live.busy for live in self._sessions.values()):
                self._analyzer.batcher.check()
            for live in list(self._sessions.values()):
                self._look_after(live, now)
            self._latest = self._sum()

    def _look_after(self, live: Live, now: float) -> None:
        """End what has lasted, idled, been away or been overrun for too long."""
        limits = self._limits
        live.tick(now)
        if live.over:
            if live.link is None or not len(live.outbox):
                self._forget(live)
        elif live.outbox.overflow:
            live.slow += 1
            self._forget(live)
        elif live.left_at is not None and now - live.left_at > limits.stream_resume_s:
            self._forget(live)
        elif live.ending:
            pass  # its last answers have deadlines of their own
        elif now - live.began_at > limits.stream_session_s:
            self._finish(live, BusyError("SESSION_LIMIT", limit_s=limits.stream_session_s))
        elif live.left_at is None and now - live.heard_at > limits.stream_idle_s:
            self._finish(live, BusyError("SESSION_IDLE", limit_s=limits.stream_idle_s))

    def _finish(self, live: Live, error: BusyError) -> None:
        live.tell(error_event(error, fatal=True))
        live.end(error.code)

    def _forget(self, live: Live) -> None:
        """Nothing of it is left; its numbers stay in the totals."""
        if self._sessions.pop(live.name, None) is None:
            return
        live.drop()
        left = live.session.stats()  # what a vanished client's session still held is dropped with it
        dropped = {"buffered": 0, "declared_dropped": left.declared_dropped + left.buffered}
        self._gone = add(self._gone, left.model_copy(update=dropped))
        self._slow += live.slow
        self._merged += live.outbox.merged
