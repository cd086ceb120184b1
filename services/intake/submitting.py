"""Submitting jobs: each under its key or without one, published together, and told one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any  # jobs of every argument type

from penstock import AsyncPublisher, NewJob, PenstockError, PublishManyError, Unconfirmed
from services.intake.idempotency import Keys, Ticket
from services.intake.problems import Problem, problem_of
from services.intake.standing import Standing


@dataclass(frozen=True, slots=True)
class Order:
    """A job to be submitted, its id given; *args_hash* when it came under an idempotency key."""

    job: NewJob[Any]
    args_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker has the job; *again*: it had it before, and nothing was published now."""

    id: str
    kind: str
    again: bool = False


@dataclass(slots=True)
class _Pass:
    """Orders sorted by what is to be done: ours to publish, others' to wait for, refused already."""

    ours: list[tuple[int, Ticket | None]] = field(default_factory=list)
    others: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    refused: dict[int, Exception] = field(default_factory=dict)


class Submissions:
    """Takes orders. One event loop; its tasks may share it."""

    def __init__(self, publisher: AsyncPublisher, standing: Standing, keys: Keys) -> None:
        self._publisher = publisher
        self._standing = standing
        self._keys = keys

    async def take(self, orders: Sequence[Order]) -> list[Accepted | Problem]:
        """Publish *orders* and say of each what became of it, in order.

        Raises ``Problem`` (503) at once, before anything is sent, when the broker takes no jobs.
        """
        self._standing.check()
        under_way = _Pass()
        try:
            await self._sort(orders, under_way)
            errors = await self._publish([orders[place].job for place, _ in under_way.ours])
        except BaseException:
            self._end(under_way, [Unconfirmed("the request was cut off")] * len(under_way.ours))
            raise
        self._end(under_way, errors)
        await self._wait(under_way)
        again = {place for place, _ in under_way.others}
        return [_answer(order, place, under_way, place in again) for place, order in enumerate(orders)]

    async def _sort(self, orders: Sequence[Order], under_way: _Pass) -> None:
        for place, order in enumerate(orders):
            if order.args_hash is None:
                under_way.ours.append((place, None))
                continue
            assert order.job.id is not None
            try:
                ticket, ours = await self._keys.begin(order.job.id, order.args_hash)
            except Problem as conflict:
                under_way.refused[place] = conflict
                continue
            if ours:
                under_way.ours.append((place, ticket))
            else:
                assert ticket.taken is not None
                under_way.others.append((place, ticket.taken))

    async def _publish(self, jobs: Sequence[NewJob[Any]]) -> Sequence[Exception | None]:
        failed: dict[int, PenstockError] = {}
        try:
            async with self._standing.confirming():
                await self._publisher.publish_many(jobs)
        except PublishManyError as error:
            failed = {position: failure for position, _, failure in error.failures}
        except Unconfirmed as error:
            return [error] * len(jobs)
        return [failed.get(position) for position in range(len(jobs))]

    def _end(self, under_way: _Pass, errors: Sequence[Exception | None]) -> None:
        for (place, ticket), error in zip(under_way.ours, errors, strict=True):
            if error is not None:
                under_way.refused[place] = error
            if ticket is not None:
                self._keys.end(ticket, error)

    @staticmethod
    async def _wait(under_way: _Pass) -> None:
        """What others publish is waited for after our own is told: it may be a twin within the same batch."""
        for place, taken in under_way.others:
            try:
                await asyncio.shield(taken)
            except (PenstockError, Problem) as error:
                under_way.refused[place] = error


def _answer(order: Order, place: int, under_way: _Pass, again: bool) -> Accepted | Problem:
    error = under_way.refused.get(place)
    if error is None:
        assert order.job.id is not None
        return Accepted(order.job.id, order.job.kind.name, again)
    return error if isinstance(error, Problem) else _problem(error)


def _problem(error: Exception) -> Problem:
    assert isinstance(error, PenstockError)
    return problem_of(error)
