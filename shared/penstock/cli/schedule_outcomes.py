"""What became of ticks, as the workers' store remembers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated

import typer

from penstock.claims import Record, State, UnderWay
from penstock.connect import store_for
from penstock.errors import ConfigError, StoreUnavailable
from penstock.settings import Settings
from penstock.storing import standing

WorkersStore = Annotated[
    str | None, typer.Option("--store-url", metavar="URL", help="The workers' store (PENSTOCK_STORE_URL).")
]

#: Ticks that are looked up at once, at most.
MOST = 10_000

#: How a record's state reads of a tick: one that moved on has failed or was put off, and comes again.
_WORDS = {State.MOVED: "waits to be tried again"}

#: By job id: the outcome at each consumer.
Outcomes = Mapping[str, Mapping[str, str]]


async def outcomes(settings: Settings, ids: Sequence[str]) -> tuple[Outcomes, str]:
    """What the store remembers of the jobs *ids*, and why it says less than that (empty where it does not).

    A store that does not answer is such a reason, and no error: what came and comes is known without it.
    """
    if settings.store_url is None:
        return {}, "what became of ticks is known where PENSTOCK_STORE_URL (or --store-url) names the workers' store"
    store = store_for(settings.store)
    try:
        await store.open()
        found = {job_id: _by_consumer(await standing(store, job_id)) for job_id in islice(ids, MOST)}
    except (StoreUnavailable, ConfigError) as error:
        return {}, f"what became of ticks is not known: {error}"
    finally:
        await store.close()
    return found, f"only the first {MOST} were looked up in the store" if len(ids) > MOST else ""


def in_words(known: Outcomes, job_id: str) -> str:
    """The outcome of a job; ``-`` where none was looked up."""
    if job_id not in known:
        return "-"
    by_consumer = known[job_id]
    if len(by_consumer) == 1:
        return next(iter(by_consumer.values()))
    return ", ".join(f"{word} at {consumer}" for consumer, word in sorted(by_consumer.items())) or "no record"


def _by_consumer(records: Sequence[Record | UnderWay]) -> dict[str, str]:
    return {record.consumer: _WORDS.get(record.state, str(record.state)) for record in records}
