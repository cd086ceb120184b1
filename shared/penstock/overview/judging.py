"""Where a rule would fire: the figures of ``thresholds``, put to what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from penstock import thresholds
from penstock.overview.model import Level, Overview, QueueState, Share, Trouble
from penstock.thresholds import Rule


def of_queue(queue: QueueState) -> list[Trouble]:
    """What is wrong with a work queue, the worst first."""
    return sorted(_of_queue(queue), key=lambda trouble: not trouble.firing)


def of_level(level: Level) -> list[Trouble]:
    """What is wrong with a delay level. What is due is seen on its way now and then: nothing fires for that."""
    if not level.stuck:
        return []
    return [Trouble(thresholds.STUCK.alert, f"{level.stuck} that are due do not move on", level.stuck_lasts)]


def of_all(overview: Overview) -> list[Trouble]:
    """What is wrong beyond single queues."""
    found = list(overview.broker.troubles)
    if thresholds.UNROUTED.broken_by(overview.unrouted):
        words = f"{overview.unrouted} in jobs.unrouted: no queue takes their kind"
        found.append(Trouble(thresholds.UNROUTED.alert, words))
    silent = overview.processes.silent.items()
    found += [Trouble(thresholds.PROCESS_DOWN.alert, f"{target}: {why}") for target, why in silent]
    return [*found, *overview.processes.troubles]


def _of_queue(queue: QueueState) -> Iterator[Trouble]:
    if queue.stuck:
        yield Trouble(thresholds.STUCK.alert, f"{queue.stuck} dead letters do not arrive", queue.stuck_lasts)
    if queue.ready and not queue.consumers:
        yield Trouble(thresholds.NO_CONSUMERS.alert, f"nobody works, {queue.ready} wait", queue.ready_lasts)
    # Counts and consumers are told seconds apart, so only what lasts is one.
    if queue.ready and queue.consumers and not queue.running and queue.silence_lasts:
        words = f"{queue.consumers} consumers take nothing, {queue.ready} wait"
        yield Trouble(thresholds.SILENT.alert, words)
    yield from _backlog(queue)
    yield from _failures(queue)
    if thresholds.DEAD_LETTERS_GROW.broken_by(queue.dead_new):
        words = f"{queue.dead_new} more dead letters in {_minutes(thresholds.DEAD_LETTERS_GROW)}, {queue.dead} in all"
        yield Trouble(thresholds.DEAD_LETTERS_GROW.alert, words)
    elif thresholds.DEAD_LETTERS.broken_by(queue.dead):
        yield Trouble(thresholds.DEAD_LETTERS.alert, f"{queue.dead} dead letters")


def _backlog(queue: QueueState) -> Iterator[Trouble]:
    age = queue.oldest
    if age is not None and thresholds.WAIT.broken_by(age.seconds):
        # The rule is about jobs that begin: when the first has waited for longer than the window, those did too.
        more = "more than " if age.beyond else ""
        yield Trouble(thresholds.WAIT.alert, f"the oldest has waited for {more}{age.seconds / 60:.0f} min", age.beyond)
    if thresholds.BACKLOG_GROWS.broken_by(queue.grew):
        words = f"{queue.grew} more wait than {_minutes(thresholds.BACKLOG_GROWS)} ago"
        yield Trouble(thresholds.BACKLOG_GROWS.alert, words, queue.growth_lasts)


def _failures(queue: QueueState) -> Iterator[Trouble]:
    if queue.died is not None and _too_many(thresholds.JOB_FAILURES, queue.died):
        words = f"{_percent(queue.died)} of jobs died in {_minutes(thresholds.JOB_FAILURES)}"
        yield Trouble(thresholds.JOB_FAILURES.alert, words)
    for kind, share in sorted(queue.failed.items()):
        if _too_many(thresholds.ATTEMPT_FAILURES, share):
            words = f"{_percent(share)} of the attempts of {kind} failed"
            yield Trouble(thresholds.ATTEMPT_FAILURES.alert, words)


def _too_many(rule: Rule, share: Share) -> bool:
    return share.of >= thresholds.LEAST_SAMPLE and rule.broken_by(share.count / share.of)


def _percent(share: Share) -> str:
    return f"{100 * min(1.0, share.count / share.of):.1f} %"


def _minutes(rule: Rule) -> str:
    return "" if rule.over is None else f"{rule.over.total_seconds() / 60:.0f} min"
