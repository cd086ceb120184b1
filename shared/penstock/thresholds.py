"""When something is worth an alarm: the figures that the rules of Prometheus and ``penstock status`` share."""

from __future__ import annotations

from datetime import timedelta

#: The share of failures (of attempts, and of jobs) above which a kind or queue is in trouble, over ``WINDOW``.
FAILURE_SHARE = 0.05
#: The fast-burn variant: this share over ``FAST_WINDOW`` does not wait for the slower one.
FAST_FAILURE_SHARE = 0.5
#: Below this many attempts (or jobs) within the window, a share says nothing.
LEAST_SAMPLE = 20

#: What rates and growth are judged over.
WINDOW = timedelta(minutes=5)
FAST_WINDOW = timedelta(minutes=1)

#: How long a state of the moment (no consumer, stuck dead letters, a silent consumer) has to last.
LASTING = timedelta(minutes=5)

#: The age of the oldest waiting job from which a backlog is one.
BACKLOG_AGE = timedelta(minutes=10)
#: Jobs that must wait before a backlog counts as growing.
BACKLOG_JOBS = 100

#: Dead letters within ``WINDOW`` that are a series, not an accident.
DEAD_LETTERS = 10

#: The share of retries among attempts that is a storm, over ``WINDOW``.
RETRY_SHARE = 0.5

#: How many times its own wait a delay level may hold the same messages.
OVERDUE_FACTOR = 2

#: How far a tick may be late.
SCHEDULE_LAG = timedelta(minutes=2)

#: The age of the oldest job in an outbox from which its relays are behind.
OUTBOX_AGE = timedelta(minutes=2)

#: How far a clock may be off the broker's: expiry and due times of foreign producers are told in wall-clock time.
CLOCK_SKEW = timedelta(seconds=5)
