"""What a group of metrics is, and the bounds that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol  # events of any type

from penstock.job import is_kind
from penstock.metrics.meters import Family, Vocabulary
from penstock.schedules.model import is_name

#: Upper bounds in seconds: of what takes milliseconds, of runs of handlers, and of waits.
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RUNS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
WAITS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)

#: Values of labels that come from outside or from foreign code, at most; kinds that have a handler come on top.
MOST_KINDS = 50
MOST_QUEUES = 20
MOST_ERRORS = 100
MOST_WORDS = 30
MOST_SCHEDULES = 200

Handle = Callable[[Any], None]


class Words:
    """The vocabularies that the groups of one process share."""

    def __init__(self) -> None:
        self.kinds = Vocabulary(MOST_KINDS, is_kind)
        self.queues = Vocabulary(MOST_QUEUES)
        self.errors = Vocabulary(MOST_ERRORS)
        self.results = Vocabulary(MOST_WORDS)
        self.uses = Vocabulary(MOST_WORDS)
        self.schedules = Vocabulary(MOST_SCHEDULES, is_name)


class Group(Protocol):
    """Metrics that belong together."""

    @property
    def families(self) -> Sequence[Family[Any]]:
        """What it shows."""
        ...

    @property
    def handles(self) -> Mapping[type[Any], Handle]:
        """What moves it: by type of event, the one function that takes such events."""
        ...
