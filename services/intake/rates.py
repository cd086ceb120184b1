"""How much each client may ask for: a bucket that fills at a steady rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from services.intake.problems import Problem


class Rates:
    """Lets each client ask *rate* times a second, and *burst* times at once. One event loop.

    There are as many buckets as clients have come by; their names are those of the tokens file.
    """

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def charge(self, client: str, cost: int = 1) -> None:
        """Take *cost* out of the client's bucket. Raises ``Problem`` (429) while it is empty.

        A batch that costs more than is left goes through and is paid off later: else a large one never could.
        """
        now = self._clock()
        left, when = self._buckets.get(client, (self._burst, now))
        left = min(left + (now - when) * self._rate, self._burst)
        if left < 1:
            wait = math.ceil((1 - left) / self._rate)
            raise Problem(429, "rate", f"{client} may ask {self._rate:g} times a second", retry_after=wait)
        self._buckets[client] = left - cost, now
