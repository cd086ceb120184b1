"""How many deliveries to hold beyond those that run: a slot never waits for the wire, and nothing is hoarded."""

from __future__ import annotations

#: Seconds of work the reserve should cover: a few round trips to a busy broker.
_COVER = 0.02
#: The most deliveries ever held in reserve, and how many jobs lie between two looks.
_MOST = 256
_LOOK_EVERY = 64
#: The weight of the newest job in the running mean of run times.
_WEIGHT = 1 / 32
#: How many times more or fewer are worth it.
_STEP = 1.5


class Reserve:
    """The prefetch of a worker with *slots*: half as many more to begin with, and more where jobs are very short.

    Short jobs are through before a round trip to the broker is; long ones held back by one worker could run at once in
    another. *most* bounds the reserve, so that what waits here still starts before the broker's consumer timeout.
    """

    def __init__(self, slots: int, most: int = _MOST) -> None:
        self._slots = slots
        self._least = max(1, slots // 2)
        self._most = max(self._least, min(most, _MOST))
        self._mean = _COVER
        self._jobs = 0
        self._pressed = False
        #: Deliveries to hold at once, the running ones included.
        self.prefetch = slots + self._least

    def held(self, deliveries: int) -> None:
        """Learn that *deliveries* are held now: only when the window was full can a wider one bring more."""
        if deliveries >= self.prefetch:
            self._pressed = True

    def ran(self, seconds: float) -> bool:
        """Learn from a job that took *seconds*; True when ``prefetch`` has changed enough to consume anew."""
        self._mean += (seconds - self._mean) * _WEIGHT
        self._jobs += 1
        if self._jobs % _LOOK_EVERY:
            return False
        wanted = min(max(self._least, int(self._slots * _COVER / max(self._mean, 1e-6))), self._most)
        held, pressed, self._pressed = self.prefetch - self._slots, self._pressed, False
        if held / _STEP < wanted < held * _STEP or (wanted > held and not pressed):
            return False  # consuming anew costs round trips: only for a real change, and where more would come
        self.prefetch = self._slots + wanted
        return wanted != held
