"""What a submission asks of the outside: somebody who takes jobs and says what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol  # a chunk holds jobs of several kinds

from penstock import NewJob, PenstockError, Receipt


class Taker(Protocol):
    """Takes jobs, for the broker or as the broker."""

    def take(self, jobs: Sequence[NewJob[Any]]) -> Sequence[Receipt | PenstockError]:
        """What became of each of *jobs*, in order, once that is known of all.

        Raises ``BrokerError`` when none can be handed over any more; those before may have been taken.
        """
        ...
