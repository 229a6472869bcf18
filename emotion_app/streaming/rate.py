"""How fast audio may come: a budget in seconds of audio that refills with time."""

from __future__ import annotations


class RateGate:
    """Lets ``factor`` seconds of audio pass a second, with ``factor * burst_s`` saved up at the most.

    When the budget is overdrawn the gate closes and stays closed until a third of it is back: one gap of some seconds
    instead of many small ones.

    >>> gate = RateGate(1.5, 10, now=0.0)
    >>> gate.allows(15.0, now=0.0), gate.allows(0.1, now=0.05), gate.allows(0.1, now=4.0)
    (True, False, True)
    """

    def __init__(self, factor: float, burst_s: float, now: float) -> None:
        self._factor = factor
        self._most = factor * burst_s
        self._budget = self._most
        self._at = now
        self.closed = False

    def allows(self, seconds: float, now: float) -> bool:
        """Whether ``seconds`` of audio that come at ``now`` may pass."""
        self._budget = min(self._most, self._budget + self._factor * max(0.0, now - self._at))
        self._at = max(self._at, now)
        if self.closed and self._budget < self._most / 3:
            return False
        self.closed = seconds > self._budget
        if not self.closed:
            self._budget -= seconds
        return not self.closed
