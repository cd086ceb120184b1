"""Jobs straight to the broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any  # a chunk holds jobs of several kinds

from penstock import BrokerError, NewJob, PenstockError, Publisher, PublishError, PublishManyError, Receipt


class Direct:
    """A ``Taker`` that publishes. Safe to share by threads."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def take(self, jobs: Sequence[NewJob[Any]]) -> Sequence[Receipt | PenstockError]:
        """See ``Taker.take``. Returns once the broker has confirmed or refused every job."""
        try:
            return self._publisher.publish_many(jobs)
        except PublishManyError as error:
            failed = {position: failure for position, _, failure in error.failures}
        for failure in failed.values():
            if isinstance(failure, BrokerError) and not isinstance(failure, PublishError):
                raise failure
        return [failed.get(place) or Receipt(job.id or "", job.kind.name) for place, job in enumerate(jobs)]
