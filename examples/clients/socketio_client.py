"""Live emotion from a WAV file over Socket.IO: ``audio_stream`` out, ``frame_result`` and ``emotion_result`` in.

    python socketio_client.py speech.wav [--url http://127.0.0.1:7860] [--token TOKEN]

Needs ``python-socketio[client]``. Every message is a small WAV in base64, so any rate will do.
"""

import argparse
import base64
import io
import threading
import time
import wave

import socketio

STEP_S = 0.25


def small_wav(pcm: bytes, like: wave.Wave_read) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(like.getnchannels())
        out.setsampwidth(like.getsampwidth())
        out.setframerate(like.getframerate())
        out.writeframes(pcm)
    return base64.b64encode(file.getvalue()).decode()


class Client:
    """One session over as many connections as it takes."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.io = socketio.Client(reconnection=False)
        self.session: dict = {}
        self.last_event_id = 0
        self.received: int | None = None
        self.resumed, self.ended = threading.Event(), threading.Event()
        self.io.on("*", self.hear)

    def hear(self, name: str, event: dict) -> None:
        """An event; handlers run in several threads, so ids tell the order."""
        self.last_event_id = max(self.last_event_id, event.get("event_id", 0))
        if name == "session.created":
            self.session = event
        elif name == "session.resumed":
            self.received = event["received_input"]
            self.resumed.set()
        elif name == "emotion_result":
            mark = "=>" if event["final"] else "  "
            print(f"{mark} {event['timestamp']:7.2f} s  {event['emotion']:10s} {event['confidence']:4.0%}", flush=True)
        elif name == "error":
            print(f"error {event['code']}: {event['message']}")
            if event["fatal"]:
                self.ended.set()
        elif name == "session.ended":
            self.ended.set()

    def connect(self) -> None:
        """Connect, and resume the session if there is one."""
        auth = None
        if self.session:
            auth = {
                "session_id": self.session["session_id"],
                "secret": self.session["secret"],
                "last_event_id": self.last_event_id,
            }
        self.resumed.clear()
        self.io.connect(self.url, headers=self.headers, auth=auth)

    def run(self, path: str) -> None:
        """Stream the file at the pace at which it was spoken."""
        self.connect()
        with wave.open(path) as file:
            rate = file.getframerate()
            began, at = time.monotonic(), 0
            while True:
                file.setpos(at)
                pcm = file.readframes(int(STEP_S * rate))
                if not pcm:
                    break
                if not self.io.connected:
                    self.connect()
                    self.resumed.wait(10)
                    at = self.received or at
                    continue
                self.io.emit("audio_stream", {"chunk": small_wav(pcm, file), "session_id": "example"})
                at = min(at + int(STEP_S * rate), file.getnframes())
                time.sleep(max(0.0, began + at / rate - time.monotonic()))
        self.io.emit("session.end", {})
        self.ended.wait(30)
        self.io.disconnect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="a 16-bit WAV")
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--token")
    args = parser.parse_args()
    try:
        Client(args.url, args.token).run(args.file)
    except socketio.exceptions.ConnectionError as error:
        raise SystemExit(f"no connection to {args.url}: {error}") from error


if __name__ == "__main__":
    main()
