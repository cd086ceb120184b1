"""Where a rule would fire: the figures of ``thresholds``, put to what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from penstock import thresholds
from penstock.overview.model import Level, Overview, QueueState, Share, Trouble


def of_queue(queue: QueueState) -> list[Trouble]:
    """What is wrong with a work queue, the worst first."""
    return sorted(_of_queue(queue), key=lambda trouble: not trouble.firing)


def of_level(level: Level) -> list[Trouble]:
    """What is wrong with a delay level. What moves on at once is seen on its way now and then: nothing fires yet."""
    if not level.stuck:
        return []
    return [Trouble("stuck dead-lettering", f"{level.stuck} that are due do not move on", firing=False)]


def of_all(overview: Overview) -> list[Trouble]:
    """What is wrong beyond single queues."""
    found = [Trouble("alarm", words) for words in overview.broker.alarms]
    if overview.unrouted:
        words = f"{overview.unrouted} in jobs.unrouted: delayed for a kind that no queue takes"
        found.append(Trouble("unrouted", words))
    found += [Trouble("target down", f"{target}: {why}") for target, why in overview.processes.silent.items()]
    return [*found, *overview.processes.troubles]


def _of_queue(queue: QueueState) -> Iterator[Trouble]:
    if queue.stuck:
        words = f"{queue.stuck} dead letters do not arrive"
        yield Trouble("stuck dead-lettering", words, queue.stuck_lasts)
    if queue.ready and not queue.consumers:
        yield Trouble("no consumers", f"nobody works, {queue.ready} wait", queue.ready_lasts)
    # Counts and consumers are told seconds apart, so only what lasts is one.
    if queue.consumers and not queue.running and queue.ready_lasts and queue.idle_lasts:
        yield Trouble("silent consumer", f"{queue.consumers} consumers take nothing, {queue.ready} wait")
    yield from _backlog(queue)
    yield from _failures(queue)
    if queue.dead_new >= thresholds.DEAD_LETTERS:
        yield Trouble("dead-letter growth", f"{queue.dead_new} more dead letters in {_window()}")
    elif queue.dead:
        yield Trouble("dead letters", f"{queue.dead} dead letters")


def _backlog(queue: QueueState) -> Iterator[Trouble]:
    limit = thresholds.BACKLOG_AGE.total_seconds()
    if queue.oldest is not None and (queue.oldest.beyond or queue.oldest.seconds >= limit):
        yield Trouble("backlog age", f"the oldest has waited for {limit / 60:.0f} min or more")
    elif queue.grew >= thresholds.BACKLOG_JOBS and queue.ready_lasts:
        yield Trouble("backlog growth", f"{queue.grew} more wait than {_window()} ago")


def _failures(queue: QueueState) -> Iterator[Trouble]:
    if _too_many(queue.died):
        yield Trouble("job failures", f"{_percent(queue.died)} of jobs died in {_window()}")
    for kind, share in sorted(queue.failed.items()):
        if _too_many(share):
            yield Trouble("attempt failures", f"{_percent(share)} of the attempts of {kind} failed")


def _too_many(share: Share | None) -> bool:
    if share is None or share.of < thresholds.LEAST_SAMPLE:
        return False
    return share.count / share.of > thresholds.FAILURE_SHARE


def _percent(share: Share | None) -> str:
    value = share.value if share else None
    return "-" if value is None else f"{100 * value:.1f} %"


def _window() -> str:
    return f"{thresholds.WINDOW.total_seconds() / 60:.0f} min"
