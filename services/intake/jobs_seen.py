"""Where jobs stand, as the store of their workers knows, to those who may know."""

from __future__ import annotations

from typing import Any  # a result is any JSON

import orjson

from penstock.claims import Record, State, UnderWay
from penstock.storing import Store, standing
from penstock.topology.matching import matches
from penstock.topology.spec import Spec
from services.intake.tokens import ALL, Action, Client

#: What tells most comes first, where several queues have run a job.
_ORDER = (State.DONE, State.DEAD, State.SKIPPED, State.RUNNING, State.MOVED)


class JobsSeen:
    """Looks into *store*. One event loop; its tasks may share it.

    A store knows in which queue a job ran, not of which kind it is: who may read a kind may read of the queues that
    *spec* has take it. None lets those read who may read all kinds. What a queue that takes everything has done with a
    job, such as the audit's, is not told: the job's own work is another's.
    """

    def __init__(self, store: Store, spec: Spec | None, kinds: tuple[str, ...]) -> None:
        self._store = store
        self._queues = {} if spec is None else _kinds_by_queue(spec, kinds)
        self._observers = set() if spec is None else {queue.name for queue in spec.queues if queue.everything}

    async def look(self, job_id: str, client: Client) -> dict[str, Any] | None:
        """What is known of a job, None where nothing is or *client* may not know. Raises as ``standing``.

        In a job that several queues take, the one that ended counts before one that has not.
        """
        records = [each for each in await standing(self._store, job_id) if each.consumer not in self._observers]
        seen = [record for record in records if self._may(client, record.consumer)]
        if not seen:
            return None
        best = min(seen, key=lambda record: _ORDER.index(record.state))
        return {"id": job_id, **_told(best), "queues": [_told(record) for record in seen]}

    def _may(self, client: Client, queue: str) -> bool:
        if Action.READ in client.actions and ALL in client.kinds:
            return True
        return any(client.may(Action.READ, kind) for kind in self._queues.get(queue, ()))


def _told(record: Record | UnderWay) -> dict[str, Any]:
    result = None if record.result is None else orjson.loads(record.result)
    return {"queue": record.consumer, "state": str(record.state), "copy": record.copy, "result": result}


def _kinds_by_queue(spec: Spec, kinds: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {
        queue.name: tuple(kind for kind in kinds if any(matches(pattern, kind) for pattern in spec.patterns_of(queue)))
        for queue in spec.queues
    }
