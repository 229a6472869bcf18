"""A bounded memory of answers: repeating a clip with the same model costs nothing."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from emotion_app.types import Floats, FrameOutput, ModelInfo

Key = tuple[str, ...]


def cache_key(samples: Floats, model: ModelInfo) -> Key:
    """Content of the sound and identity of the model; nothing else changes a frame output."""
    content = hashlib.blake2b(samples.data, digest_size=20).hexdigest()
    return content, model.name, model.source, model.sha256 or "", model.engine, model.precision, model.device


class FrameCache:
    """Least recently used frame outputs within ``max_mb`` megabytes; thread-safe. 0 switches it off."""

    def __init__(self, max_mb: float) -> None:
        self._max_bytes = int(max_mb * 1e6)
        self._lock = threading.Lock()
        self._items: OrderedDict[Key, FrameOutput] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0

    def get(self, key: Key, *, features: bool) -> FrameOutput | None:
        """The stored output, or None; one without (T, D) features does not answer a request for them."""
        with self._lock:
            found = self._items.get(key)
            if found is None or (features and found.features is None):
                self.misses += 1
                return None
            self._items.move_to_end(key)
            self.hits += 1
            return found

    def put(self, key: Key, output: FrameOutput) -> None:
        """Remember an output; what does not fit pushes the oldest out, what is larger than the cache is not kept."""
        size = _n_bytes(output)
        if size > self._max_bytes:
            return
        with self._lock:
            old = self._items.pop(key, None)
            self._bytes += size - (_n_bytes(old) if old else 0)
            self._items[key] = output
            while self._bytes > self._max_bytes:
                self._bytes -= _n_bytes(self._items.popitem(last=False)[1])

    @property
    def n_bytes(self) -> int:
        """Memory held now."""
        return self._bytes


def _n_bytes(output: FrameOutput) -> int:
    arrays = (output.logits, output.mean_feature, output.features, output.reference_logits)
    return sum(a.nbytes for a in arrays if a is not None)
