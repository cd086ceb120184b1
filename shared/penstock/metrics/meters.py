"""Counts that are cheap to keep and bounded: families of counters, gauges and histograms, by the values of labels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from penstock.printable import printable, shortened

#: What a label says in place of all that is beyond its bound.
OTHER = "other"

#: Series of one family, at most; a value of a label, at most (characters).
MOST_SERIES = 2_000
#: Observations that a histogram keeps uncounted, at most.
FULL = 256
_LONGEST = 200


class Kind(StrEnum):
    """What a family holds, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Number:
    """A counter, which only grows, or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """How many observations fell between *bounds*, and their sum.

    Observations are kept for a while and counted many at once: sorted, they cost a fifth of what they cost one by one.
    """

    __slots__ = ("_fresh", "bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        #: Not cumulated: one more than bounds, the last without an upper one.
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self._fresh: list[float] = []  # not counted yet

    def observe(self, *values: float) -> None:
        """Count *values*."""
        self._fresh += values
        if len(self._fresh) >= FULL:
            self._fold()

    def _fold(self) -> None:
        values, below = sorted(self._fresh), 0
        self._fresh.clear()
        for place, bound in enumerate(self.bounds):
            up_to = bisect_right(values, bound)
            self.counts[place] += up_to - below
            below = up_to
        self.counts[-1] += len(values) - below
        self.total += sum(values)

    def copy(self) -> Histogram:
        """The histogram as it is now."""
        self._fold()
        twin = Histogram(self.bounds)
        twin.counts, twin.total = self.counts.copy(), self.total
        return twin


class Vocabulary:
    """The values one label takes: those made known, and the first *most* others that *fit*; all else is ``other``."""

    def __init__(self, most: int, fits: Callable[[str], bool] = bool) -> None:
        self._words: dict[str, str] = {}
        self._room = most
        self._fits = fits

    def know(self, words: Iterable[str]) -> None:
        """Take *words*, whatever room is left: they come from our own code."""
        for word in words:
            self._words.setdefault(word, _label(word))

    def __contains__(self, raw: str) -> bool:
        return raw in self._words

    def word(self, raw: str) -> str:
        """What the label says for *raw*."""
        word = self._words.get(raw)
        return self._admit(raw) if word is None else word

    def _admit(self, raw: str) -> str:
        if self._room <= 0 or len(raw) > _LONGEST or not self._fits(raw):
            return OTHER
        self._room -= 1
        word = self._words[raw] = _label(raw)
        return word


V = TypeVar("V", Number, Histogram)


@dataclass(frozen=True, slots=True)
class About:
    """What a family is called and means; *name* without ``_total``."""

    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...]


class Family(Generic[V]):
    """The series of one metric. Not locked: its owner is."""

    def __init__(self, about: About, new: Callable[[], V]) -> None:
        self.about = about
        self._new: Callable[[], V] = new
        self._series: dict[tuple[str, ...], V] = {}

    def child(self, *values: str) -> V:
        """The series with these *values* of the labels, in their order; to be kept by who counts often."""
        found = self._series.get(values)
        if found is None:
            if len(self._series) >= MOST_SERIES:
                values = (OTHER,) * len(values)
            found = self._series.setdefault(values, self._new())
        return found

    def series(self) -> list[tuple[tuple[str, ...], V]]:
        """Every series so far, with its values of the labels."""
        return list(self._series.items())


def counter(name: str, text: str, *labels: str) -> Family[Number]:
    """A family of counters; *name* ends in ``_total``."""
    return Family(About(Kind.COUNTER, name.removesuffix("_total"), text, labels), Number)


def gauge(name: str, text: str, *labels: str) -> Family[Number]:
    """A family of gauges."""
    return Family(About(Kind.GAUGE, name, text, labels), Number)


def histogram(name: str, text: str, bounds: Sequence[float], *labels: str) -> Family[Histogram]:
    """A family of histograms with upper *bounds*, in order."""
    return Family(About(Kind.HISTOGRAM, name, text, labels), lambda: Histogram(bounds))


def _label(raw: str) -> str:
    return shortened(printable(raw), _LONGEST)
