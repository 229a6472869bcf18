"""Live emotion from a WAV file or the microphone over a plain WebSocket.

    python python_client.py [speech.wav] [--url ws://127.0.0.1:7860/ws/emotion] [--token TOKEN]

Needs ``websockets``; the microphone also needs ``sounddevice``. After a lost connection the session is resumed: the
server says up to which sample it has heard us, and tells again what we have not seen.
"""

import argparse
import asyncio
import json
import queue
import time
import wave
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

STEP_S = 0.1


class Client:
    """One session over as many connections as it takes."""

    def __init__(self, url: str, token: str | None, rate: int) -> None:
        self.url, self.rate = url, rate
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.sound = bytearray()  # everything recorded; a client for hours would keep the last half minute
        self.complete = False
        self.session: dict = {}
        self.last_event_id = 0
        self.over = False

    async def run(self, source: AsyncIterator[bytes]) -> None:
        """Stream ``source`` to its end."""
        recording = asyncio.create_task(self.record(source))
        while not self.over:
            try:
                async with connect(self.url, additional_headers=self.headers, proxy=None) as ws:
                    await self.talk(ws)
            except (OSError, ConnectionClosed) as error:
                if not self.session:
                    raise SystemExit(f"no connection to {self.url}: {error}") from error
                print("connection lost, trying again ...")
                await asyncio.sleep(1)
        recording.cancel()

    async def record(self, source: AsyncIterator[bytes]) -> None:
        """Sound does not wait for the connection."""
        async for piece in source:
            self.sound += piece
        self.complete = True

    async def talk(self, ws: ClientConnection) -> None:
        """One connection: begin or resume, speak and listen."""
        heard = 0
        if not self.session:
            await ws.send(json.dumps({"type": "session.start", "sample_rate": self.rate}))
        else:
            await ws.send(
                json.dumps(
                    {
                        "type": "session.resume",
                        "session_id": self.session["session_id"],
                        "secret": self.session["secret"],
                        "last_event_id": self.last_event_id,
                    }
                )
            )
            event = json.loads(await ws.recv())
            if event["type"] == "error":
                raise SystemExit(event["message"])
            heard = 2 * event["received_input"]
        speaking = asyncio.create_task(self.speak(ws, heard))
        try:
            async for text in ws:
                self.show(json.loads(text))
        finally:
            speaking.cancel()

    async def speak(self, ws: ClientConnection, at: int) -> None:
        """Send what was recorded from byte ``at`` on."""
        while not (self.complete and at >= len(self.sound)):
            piece = bytes(self.sound[at : at + 64_000])
            if piece:
                await ws.send(piece)
                at += len(piece)
            else:
                await asyncio.sleep(STEP_S / 2)
        await ws.send('{"type": "session.end"}')

    def show(self, event: dict) -> None:
        """Print what the server tells."""
        self.last_event_id = event.get("event_id", self.last_event_id)
        kind = event["type"]
        if kind == "session.created":
            self.session = event
        elif kind == "session.ended":
            self.over = True
            s = event["stats"]
            print(f"end: {s['received'] / 16000:.1f} s heard, {s['analysed'] / 16000:.1f} s of it speech")
        elif kind == "emotion_result":
            mark = "=>" if event["final"] else "  "
            print(
                f"{mark} {event['audio_start_ms'] / 1000:7.2f} - {event['audio_end_ms'] / 1000:7.2f} s  "
                f"{event['emotion']:10s} {event['confidence']:4.0%}",
                flush=True,
            )
        elif kind == "alert":
            print(f"!! {event['rule']}")
        elif kind == "error":
            print(f"error {event['code']}: {event['message']}")
            self.over = self.over or event["fatal"]


async def file_source(path: str) -> AsyncIterator[bytes]:
    with wave.open(path) as file:
        step = int(STEP_S * file.getframerate())
        began, sent = time.monotonic(), 0.0
        while piece := file.readframes(step):
            yield piece
            sent += STEP_S
            await asyncio.sleep(max(0.0, began + sent - time.monotonic()))


async def microphone_source(rate: int) -> AsyncIterator[bytes]:
    import sounddevice

    pieces: queue.Queue[bytes] = queue.Queue()
    with sounddevice.RawInputStream(
        rate, int(STEP_S * rate), channels=1, dtype="int16", callback=lambda data, *_: pieces.put(bytes(data))
    ):
        print("listening; Ctrl-C ends")
        while True:
            yield await asyncio.to_thread(pieces.get)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="a 16-bit mono WAV; without it the microphone")
    parser.add_argument("--url", default="ws://127.0.0.1:7860/ws/emotion")
    parser.add_argument("--token")
    args = parser.parse_args()
    if args.file:
        with wave.open(args.file) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise SystemExit("a 16-bit mono WAV is needed; emotion-app stream takes any file")
            rate = file.getframerate()
        source = file_source(args.file)
    else:
        rate = 16_000
        source = microphone_source(rate)
    try:
        asyncio.run(Client(args.url, args.token, rate).run(source))
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
