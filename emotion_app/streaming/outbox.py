"""What a session has to tell: bounded, partial events merge, final ones are never lost, sent ones can be sent again."""

from __future__ import annotations

import asyncio
from collections import deque

from emotion_app.streaming.events import EmotionResult, ErrorEvent, Event, FrameResult, SessionStats
from emotion_app.streaming.results import merge_frames


class Outbox:
    """Events waiting to be sent, and the last ones that were.

    Ids are given when an event is taken, so they have no holes although partial events merge while they wait:
    a newer interval result, statistics or error of the same kind takes the place of the older one, and frame results
    that follow on each other become one. Nothing else ever gives way; when ``most`` such events wait, ``overflow`` is
    true and the session must end.

    Args:
        session_id: put into every event.
        most: events kept unsent, and as many sent.

    Attributes:
        merged: events that gave way.
        last_id: id of the last event taken.
    """

    def __init__(self, session_id: str, most: int) -> None:
        self._session_id = session_id
        self._most = most
        self._waiting: deque[Event] = deque()
        self._again: deque[Event] = deque()  # numbered events that a resumed client asked for
        self._sent: deque[Event] = deque(maxlen=most)
        self._news = asyncio.Event()
        self.merged = 0
        self.last_id = 0
        self.overflow = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    def put(self, event: Event) -> None:
        """Add an event."""
        key = _key(event)
        old = next((e for e in reversed(self._waiting) if _key(e) == key), None) if key else None
        if old is not None:
            both = merge_frames(old, event) if isinstance(event, FrameResult) else event
            if both is not None:
                self._waiting.remove(old)
                self.merged += 1
                event = both
        self._waiting.append(event)
        if len(self._waiting) > self._most:
            self._make_room()
        self._news.set()

    def take(self) -> Event | None:
        """The next event to send, numbered; it is kept for a client that comes back."""
        if self._again:
            return self._again.popleft()
        if not self._waiting:
            self._news.clear()
            return None
        self.last_id += 1
        event = self._waiting.popleft().model_copy(update={"session_id": self._session_id, "event_id": self.last_id})
        self._sent.append(event)
        return event

    def rewind(self, last_event_id: int) -> tuple[int, int]:
        """Send again what came after ``last_event_id``: how many events, and how many are no longer there."""
        self._again = deque(e for e in self._sent if (e.event_id or 0) > last_event_id)
        missing = max(0, self.last_id - min(last_event_id, self.last_id) - len(self._again))
        self._news.set()
        return len(self._again), missing

    async def wait(self) -> None:
        """Until there may be something to take."""
        await self._news.wait()

    def wake(self) -> None:
        """Let a waiting sender look again."""
        self._news.set()

    def _make_room(self) -> None:
        partial = next((e for e in self._waiting if _key(e)), None)
        if partial is None:
            self.overflow = True
        else:
            self._waiting.remove(partial)
            self.merged += 1


def _key(event: Event) -> str | None:
    """Events with the same key may merge; None: never."""
    if isinstance(event, FrameResult):
        return "frames"
    if isinstance(event, EmotionResult):
        return None if event.final else "interval"
    if isinstance(event, SessionStats):
        return "stats"
    if isinstance(event, ErrorEvent) and not event.fatal:
        return f"error {event.code}"
    return None
