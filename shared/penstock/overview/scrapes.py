"""Asks running Penstock processes for their metrics: what fails, by queue and kind, and what they suffer from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx2

from penstock import thresholds
from penstock.errors import ConfigError
from penstock.overview.model import Processes, Share, Trouble

VARIABLE = "PENSTOCK_METRICS_TARGETS"

#: Seconds for an answer, and how many are asked at once.
_TIMEOUT = 0.5
_AT_ONCE = 32
_MOST = 1_000

_ATTEMPTS = "penstock_attempts_total"
#: Gauges that mean trouble at a value, and how that is told.
_SIGNS = (
    ("penstock_store_up", 0.0, thresholds.STORE_AWAY, "its store is away"),
    ("penstock_broker_blocked", 1.0, thresholds.BLOCKED, "the broker takes none of its messages"),
    ("penstock_broker_connected", 0.0, thresholds.DISCONNECTED, "is not connected"),
)
#: Gauges that every relay of an outbox shows alike.
_OUTBOX = (
    (
        "penstock_outbox_oldest_seconds",
        thresholds.OUTBOX_BACKLOG,
        "the oldest job in the outbox has waited for {:.0f} s",
    ),
    ("penstock_outbox_parked_jobs", thresholds.OUTBOX_PARKED, "{:.0f} jobs are parked in the outbox"),
)
_LEADS = "penstock_scheduler_leads"


@dataclass(frozen=True, slots=True)
class _Page:
    target: str
    why: str | None = None
    #: Name of the sample, its labels, its value.
    samples: Sequence[tuple[str, Mapping[str, str], float]] = field(default_factory=list)


def targets(text: str | None) -> list[str]:
    """The targets in *text*, ``host:port`` by commas or blanks. Raises ``ConfigError`` naming those that are none."""
    found = list(dict.fromkeys((text or "").replace(",", " ").split()))
    wrong = [target for target in found if not _is_target(target)]
    if wrong or len(found) > _MOST:
        raise ConfigError(f"{VARIABLE}: {wrong[0] if wrong else 'more than 1,000'} is not host:port, by commas")
    return found


def ask(found: Sequence[str]) -> Processes:
    """What the processes at the targets *found* say. One that does not answer is told; nothing is raised."""
    if not found:
        return Processes()
    # Targets are asked in the open, and no redirect is followed: there are no certificates to be read.
    asking = httpx2.Client(timeout=_TIMEOUT, trust_env=False, verify=False)
    with asking as client, ThreadPoolExecutor(_AT_ONCE) as threads:
        pages = list(threads.map(lambda target: _page(client, target), found))
    return Processes(
        asked=len(pages),
        silent={page.target: page.why for page in pages if page.why is not None},
        failed=_failed(pages),
        troubles=[*(trouble for page in pages for trouble in _suffers(page)), *_together(pages)],
    )


def _is_target(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return (
        bool(host) and "/" not in host and "@" not in host and port.isascii() and port.isdigit() and int(port) < 2**16
    )


def _page(client: httpx2.Client, target: str) -> _Page:
    from prometheus_client.parser import text_string_to_metric_families  # only for those who name targets

    try:
        answer = client.get(f"http://{target}/metrics")
        answer.raise_for_status()
        families = text_string_to_metric_families(answer.text)
        return _Page(target, None, [(s.name, s.labels, s.value) for family in families for s in family.samples])
    except httpx2.HTTPError as error:
        return _Page(target, f"no metrics ({error or type(error).__name__})")
    except ValueError as error:
        return _Page(target, f"what answers there shows no metrics ({error})")


def _failed(pages: Iterable[_Page]) -> Mapping[str, Mapping[str, Share]]:
    counts: dict[str, dict[str, list[int]]] = {}
    for page in pages:
        for name, labels, value in page.samples:
            if name == _ATTEMPTS:
                count = counts.setdefault(labels["queue"], {}).setdefault(labels["kind"], [0, 0])
                count[0] += int(value) if labels["result"] == "failed" else 0
                count[1] += int(value)
    return {queue: {kind: Share(*count) for kind, count in kinds.items()} for queue, kinds in counts.items()}


def _suffers(page: _Page) -> Iterator[Trouble]:
    for gauge, bad, rule, words in _SIGNS:
        if any(name == gauge and value == bad for name, _, value in page.samples):
            yield Trouble(rule.alert, f"{page.target}: {words}")


def _together(pages: Sequence[_Page]) -> Iterator[Trouble]:
    """What only all processes together show."""
    leads = _values(pages, _LEADS)
    if leads and not sum(leads):
        yield Trouble(thresholds.NO_LEADER.alert, "no scheduler leads")
    for gauge, rule, words in _OUTBOX:
        worst = max(_values(pages, gauge), default=0.0)
        if rule.broken_by(worst):
            yield Trouble(rule.alert, words.format(worst))


def _values(pages: Iterable[_Page], gauge: str) -> list[float]:
    return [value for page in pages for name, _, value in page.samples if name == gauge]
