"""What each user may do on the broker, as RabbitMQ's permissions: nothing that ``topology.yaml`` does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.delay import LEVELS
from penstock.topology.names import (
    AUDIT,
    CLAIM_KEY,
    COMMAND_KEY,
    DEAD,
    DELAY,
    JOBS,
    KNOCK_KEY,
    SCHEDULER,
    SCHEDULER_VIEW,
    STATE_KEY,
    UNROUTED,
    dead_queue,
    work_queue,
)
from penstock.topology.spec import Role, Spec, UserSpec

NOTHING = "^$"

_OURS = rf"^{JOBS}(\..+)?$"
_WORD = "[a-z0-9_]+"
_SOME_DELAY = rf"([01]\.){{{LEVELS}}}"
_NO_DELAY = rf"(0\.){{{LEVELS}}}"

#: A deploy tool sets policies; it creates no users, which takes an administrator.
_TAGS = {Role.TOPOLOGY: "policymaker", Role.MONITOR: "monitoring", Role.OPERATOR: "management"}

#: What is published to the exchange of the schedulers: they hold their state there, an operator asks for something.
_SCHEDULING: Mapping[Role | None, Sequence[str]] = {
    Role.SCHEDULER: (STATE_KEY, KNOCK_KEY, CLAIM_KEY),
    Role.OPERATOR: (COMMAND_KEY,),
}


@dataclass(frozen=True, slots=True)
class Access:
    """One user's permissions in one virtual host, as regular expressions over names, and over keys in ``topics``."""

    user: str
    tags: tuple[str, ...] = ()
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    #: By exchange, what keys may be published with. Without an entry for an exchange all may, says the broker.
    topics: Mapping[str, str] = field(default_factory=dict)


def access(spec: Spec, user: UserSpec) -> Access:
    """Return what *user* may do: the sum of what it publishes, where it works, and its role."""
    tags = (_TAGS[user.role],) if user.role in _TAGS else ()
    if user.role is Role.TOPOLOGY:
        return Access(user.name, tags, configure=_OURS, write=_OURS, read=_OURS)
    topics = _topics(spec, user)
    return Access(
        user.name,
        tags,
        write=_one_of(map(re.escape, (*topics, *_asks_for(spec, user)))),
        read=_one_of(map(re.escape, _reads(spec, user))),
        topics={exchange: _one_of(keys) for exchange, keys in topics.items()},
    )


def kinds_regex(pattern: str) -> str:
    """The regular expression, without anchors, for the kinds that fit the topic *pattern*."""
    first, *rest = pattern.split(".")
    regex = f"({_WORD}\\.)*" if first == "#" else _word(first)
    glue = "" if first == "#" else r"\."
    for word in rest:
        if word == "#":
            regex += rf"(\.{_WORD})*"
        else:
            regex, glue = f"{regex}{glue}{_word(word)}", r"\."
    return regex


def _topics(spec: Spec, user: UserSpec) -> Mapping[str, Sequence[str]]:
    """The key patterns by exchange that *user* publishes to."""
    own = [re.escape(work_queue(name)) for name in user.works]
    kinds = [kinds_regex(pattern) for pattern in user.publishes]
    letters = list(own)
    delays = [f"{_SOME_DELAY}q\\.{queue}" for queue in own]
    if not user.foreign:
        delays += [f"{_SOME_DELAY}k\\.{kind}" for kind in kinds]
    if user.role is Role.OPERATOR:
        delays += [f"{_NO_DELAY}q\\.{re.escape(work_queue(queue.name))}" for queue in spec.queues]
        # Unrouted jobs are published by their kind, so that those without a queue come back; letters are edited.
        kinds += [kinds_regex(pattern) for pattern in spec.patterns]
        letters += [re.escape(name) for name in (*(work_queue(queue.name) for queue in spec.queues), UNROUTED)]
    topics = {
        JOBS: kinds,
        DELAY: delays,
        DEAD: letters,
        SCHEDULER: _SCHEDULING.get(user.role, ()),
        AUDIT: [_WORD] if user.role is Role.OPERATOR else [],
    }
    return {exchange: keys for exchange, keys in topics.items() if keys}


def _reads(spec: Spec, user: UserSpec) -> Sequence[str]:
    """The queues that *user* consumes."""
    queues = [work_queue(name) for name in user.works]
    if user.role is Role.OPERATOR:
        queues += [*(dead_queue(queue.name) for queue in spec.queues), UNROUTED, SCHEDULER_VIEW, AUDIT]
    if user.role is Role.SCHEDULER:
        queues.append(SCHEDULER)
    return queues


def _asks_for(spec: Spec, user: UserSpec) -> Sequence[str]:
    """The queues that *user* may ask for without touching what is in them: a replay asks whether its target exists.

    RabbitMQ 4.3 answers a passive declaration to those who have some permission on the queue, whichever it is. To write
    to a queue means to bind it, which also takes reading its exchange: so this lets nobody do anything.
    """
    return [work_queue(queue.name) for queue in spec.queues] if user.role is Role.OPERATOR else []


def _word(word: str) -> str:
    return _WORD if word == "*" else re.escape(word)


def _one_of(patterns: Iterable[str]) -> str:
    match list(dict.fromkeys(patterns)):
        case []:
            return NOTHING
        case [one]:
            return f"^{one}$"
        case several:
            return f"^({'|'.join(several)})$"
