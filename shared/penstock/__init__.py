"""Penstock: background jobs on RabbitMQ. Everything public is here; what is not listed may change without notice."""

from typing import TYPE_CHECKING

from penstock.errors import (
    AccessRefused,
    BrokerError,
    ConfigError,
    ConnectionLost,
    DecodeError,
    JobCrashed,
    JobTimeout,
    MessageError,
    Nacked,
    PenstockError,
    PublishError,
    PublishManyError,
    RegistrationError,
    Reject,
    Retry,
    SchemaError,
    Signal,
    Snooze,
    StoreUnavailable,
    TooLarge,
    TopologyMismatch,
    Unconfirmed,
    UnknownKind,
    Unroutable,
    UsageError,
)
from penstock.events import Event, Events
from penstock.handlers import Handler, Handlers
from penstock.job import Job, JobKind, NewJob, Receipt
from penstock.middleware import Middleware, Next
from penstock.outcome import (
    Cancelled,
    Dead,
    DeadReason,
    Done,
    Duplicate,
    Expired,
    Failure,
    Outcome,
    Released,
    Retried,
    Skipped,
    Snoozed,
)
from penstock.retry import RetryPolicy
from penstock.storing import BlockingTransaction, Transaction
from penstock.version import __version__ as __version__

if TYPE_CHECKING:
    from penstock import metrics, outbox
    from penstock.publisher import AsyncPublisher, Publisher
    from penstock.results import Result, Results
    from penstock.worker import Worker

#: Loaded when first used: they bring asyncio and more, which a module that only declares kinds never needs.
_LAZY = {
    "AsyncPublisher": "penstock.publisher",
    "Publisher": "penstock.publisher",
    "Result": "penstock.results",
    "Results": "penstock.results",
    "Worker": "penstock.worker",
}
#: Modules that are public as a whole.
_MODULES = {"metrics", "outbox"}

__all__ = [
    "AccessRefused",
    "AsyncPublisher",
    "BlockingTransaction",
    "BrokerError",
    "Cancelled",
    "ConfigError",
    "ConnectionLost",
    "Dead",
    "DeadReason",
    "DecodeError",
    "Done",
    "Duplicate",
    "Event",
    "Events",
    "Expired",
    "Failure",
    "Handler",
    "Handlers",
    "Job",
    "JobCrashed",
    "JobKind",
    "JobTimeout",
    "MessageError",
    "Middleware",
    "Nacked",
    "NewJob",
    "Next",
    "Outcome",
    "PenstockError",
    "PublishError",
    "PublishManyError",
    "Publisher",
    "Receipt",
    "RegistrationError",
    "Reject",
    "Released",
    "Result",
    "Results",
    "Retried",
    "Retry",
    "RetryPolicy",
    "SchemaError",
    "Signal",
    "Skipped",
    "Snooze",
    "Snoozed",
    "StoreUnavailable",
    "TooLarge",
    "TopologyMismatch",
    "Transaction",
    "Unconfirmed",
    "UnknownKind",
    "Unroutable",
    "UsageError",
    "Worker",
    "metrics",
    "outbox",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY and name not in _MODULES:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    from importlib import import_module

    value = import_module(f"penstock.{name}") if name in _MODULES else getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
