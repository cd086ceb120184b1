"""Every error Penstock raises, in one tree, and the signals by which a handler steers its job.

PenstockError
├── ConfigError            all problems of a setting, URL or YAML file at once
├── RegistrationError      a handler or kind that cannot be registered
├── UsageError             an argument that cannot be meant: a negative delay, a naive datetime
├── MessageError           a message that can never run: decode, unknown kind, schema
│   ├── DecodeError
│   ├── UnknownKind
│   └── SchemaError
├── BrokerError            what the broker or the way to it refused
│   ├── ConnectionLost     unreachable or gone; trying again may help
│   ├── AccessRefused      login, vhost or permission; trying again does not help
│   ├── TopologyMismatch   something is missing on the broker or declared otherwise
│   └── PublishError
│       ├── Unroutable     returned: no queue takes this key
│       ├── Nacked         refused by the broker (a full queue)
│       ├── Unconfirmed    no answer before the deadline: the outcome is unknown
│       ├── TooLarge       over the size limit
│       └── Unencodable    holds a value that AMQP cannot carry
├── StoreUnavailable       the store cannot be reached or cannot write; trying again may help
├── JobTimeout             a handler ran past its deadline
├── JobCrashed             the process that ran the job died
└── Signal                 raised by handlers: Retry, Snooze, Reject
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class PenstockError(Exception):
    """The root of every error of Penstock."""

    exit_code = 1


class ConfigError(PenstockError):
    """Settings, a URL or a file are wrong; *problems* names every one of them, a line each."""

    exit_code = 5

    def __init__(self, *problems: str) -> None:
        self.problems: Sequence[str] = problems
        super().__init__("; ".join(problems))


class RegistrationError(PenstockError):
    """A kind or handler cannot be registered as it stands."""

    exit_code = 2


class UsageError(PenstockError, ValueError):
    """An argument that cannot be meant, such as a negative delay or a datetime without a zone."""

    exit_code = 2


class MessageError(PenstockError):
    """A message that can never run as it stands: it is dead-lettered at once, never retried."""

    exit_code = 2


class DecodeError(MessageError):
    """The body is not a JSON object in UTF-8 within the limits."""


class UnknownKind(MessageError):
    """No handler (in a worker) or no catalogue entry (in a publisher) has this kind."""


class SchemaError(MessageError):
    """The arguments do not fit the kind's schema."""


class BrokerError(PenstockError):
    """The broker, or the way to it, refused or failed."""

    exit_code = 3


class ConnectionLost(BrokerError):
    """The broker cannot be reached or the connection ended; trying again may help."""


class AccessRefused(BrokerError):
    """Login, virtual host or permission refused; trying again without a change does not help."""

    exit_code = 4


class TopologyMismatch(BrokerError):
    """An exchange or queue is missing or was declared with other arguments."""

    exit_code = 5


class PublishError(BrokerError):
    """The broker did not take a message."""

    exit_code = 7


class Unroutable(PublishError):
    """The broker returned the message: no queue is bound to its key."""


class Nacked(PublishError):
    """The broker refused the message, for example because a queue is full."""


class Unconfirmed(PublishError):
    """No answer came before the deadline: the message may or may not be on the broker."""


class TooLarge(PublishError):
    """The message is over the size limit and was not sent."""


class Unencodable(PublishError):
    """The message holds a value that AMQP cannot carry and was not sent: trying again does not help."""


class PublishManyError(PublishError):
    """Some jobs of a ``publish_many`` were not taken: *failures* are (position, job id, error), in order.

    Every other job is confirmed. A job whose error is ``Unconfirmed`` may be on the broker; publish it again with the
    same id.
    """

    def __init__(self, failures: Sequence[tuple[int, str, PenstockError]], total: int) -> None:
        self.failures = failures
        position, job_id, error = failures[0]
        super().__init__(
            f"{len(failures)} of {total} jobs were not published; the first, number {position} ({job_id}): {error}"
        )


class StoreUnavailable(PenstockError):
    """The store of an idempotent handler cannot be reached or cannot write; trying again may help."""

    exit_code = 3


class JobTimeout(PenstockError):
    """A handler ran past its deadline."""


class JobCrashed(PenstockError):
    """The process that ran the job died before it could answer."""


class Signal(PenstockError):
    """Raised by a handler to say what becomes of its job; not a failure of ours."""


class Retry(Signal):
    """Run the job again after *after* (the policy's delay when None). Costs an attempt."""

    def __init__(self, message: str = "the handler asked for a retry", *, after: timedelta | None = None) -> None:
        self.after = None if after is None else _duration(after)
        super().__init__(message)


class Snooze(Signal):
    """Run the job again after *after*. Costs no attempt, but a job may only snooze up to its maximum age."""

    def __init__(self, message: str = "the handler snoozed the job", *, after: timedelta) -> None:
        self.after = _duration(after)
        super().__init__(message)


class Reject(Signal):
    """The job can never succeed: dead-letter it now, with *reason* as its story."""

    def __init__(self, reason: str = "the handler rejected the job") -> None:
        super().__init__(reason)


def _duration(after: object) -> timedelta:
    # Here, where the handler's own line is in the traceback: found later, it would be the worker that fails.
    if not isinstance(after, timedelta):
        raise UsageError(f"after is {after!r}; it takes a timedelta")
    return after
