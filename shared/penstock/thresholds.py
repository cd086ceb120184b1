"""When something is worth an alarm: the figures that ``penstock status`` shares with the rules in ``infra/prometheus``.

A test compares them with the rules, by the names of the alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert: its name, the value above (or, with *least*, from) which it is one, what that is taken *over*, and how
    long it has to last before anybody is woken."""

    alert: str
    value: float = 0
    over: timedelta | None = None
    lasting: timedelta = timedelta()
    least: bool = False

    def broken_by(self, value: float) -> bool:
        """Whether *value* is beyond what is fine."""
        return value >= self.value if self.least else value > self.value


#: Below this many attempts (or jobs) a share of failures says nothing.
LEAST_SAMPLE = 20

ATTEMPT_FAILURES = Rule("PenstockAttemptFailureRate", 0.05, over=5 * _MINUTE, lasting=2 * _MINUTE)
JOB_FAILURES = Rule("PenstockJobFailureRate", 0.05, over=5 * _MINUTE, lasting=2 * _MINUTE)
#: Of the seconds that jobs wait.
WAIT = Rule("PenstockWaitLong", 300, over=10 * _MINUTE, lasting=5 * _MINUTE)
SILENT = Rule("PenstockConsumerSilent", over=2 * _MINUTE, lasting=5 * _MINUTE)
DEAD_LETTERS = Rule("PenstockDeadLetters", lasting=_MINUTE)
DEAD_LETTERS_GROW = Rule("PenstockDeadLettersGrow", 10, over=10 * _MINUTE, lasting=_MINUTE, least=True)
UNROUTED = Rule("PenstockUnrouted", lasting=_MINUTE)
BACKLOG_GROWS = Rule("PenstockBacklogGrows", 100, over=15 * _MINUTE, lasting=15 * _MINUTE)
NO_CONSUMERS = Rule("PenstockNoConsumers", lasting=2 * _MINUTE)
STUCK = Rule("PenstockDeadLetteringStuck", lasting=5 * _MINUTE)

BROKER_ALARM = Rule("PenstockBrokerAlarm")
BROKER_DOWN = Rule("PenstockBrokerDown", lasting=_MINUTE)
PROCESS_DOWN = Rule("PenstockProcessDown", lasting=2 * _MINUTE)
DISCONNECTED = Rule("PenstockDisconnected", lasting=_MINUTE)
BLOCKED = Rule("PenstockPublishersBlocked", lasting=_MINUTE)
STORE_AWAY = Rule("PenstockStoreAway", lasting=_MINUTE)
NO_LEADER = Rule("PenstockNoLeader", lasting=_MINUTE)
#: Seconds that the oldest job in an outbox waits.
OUTBOX_BACKLOG = Rule("PenstockOutboxBacklog", 60, lasting=_MINUTE)
OUTBOX_PARKED = Rule("PenstockOutboxParked")

#: How far a clock may be off the broker's: expiry and due times of foreign producers are told in wall-clock time.
CLOCK_SKEW = timedelta(seconds=5)
