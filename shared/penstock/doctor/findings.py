"""What a check says: well, wrong with its cure, or why it could not look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from penstock.errors import ConfigError, PenstockError

#: The exit code of a check that found something.
FOUND = 6


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WRONG = "wrong"
    #: Nothing to look at, or no way to: no finding, but no all-clear either.
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: *check* found *words*, and *cure* is what to do.

    *code*: the exit code when it is wrong; what kept the doctor from looking at all has its own.
    """

    check: str
    state: State
    words: str
    cure: str | None = None
    code: int = FOUND


def well(check: str, words: str) -> Finding:
    """*check* is in order."""
    return Finding(check, State.OK, words)


def wrong(check: str, words: str, cure: str, code: int = FOUND) -> Finding:
    """*check* is not in order."""
    return Finding(check, State.WRONG, words, cure, code)


def unseen(check: str, why: str) -> Finding:
    """*check* was not made."""
    return Finding(check, State.UNSEEN, why)


def failed(check: str, error: PenstockError) -> list[Finding]:
    """*check* ended with *error*, whose words name the cure; a line for each problem."""
    problems = error.problems if isinstance(error, ConfigError) else [str(error)]
    return [Finding(check, State.WRONG, problem, None, error.exit_code) for problem in problems]


def exit_code(findings: Sequence[Finding]) -> int:
    """0 when nothing is wrong; else that of the first finding that kept the doctor from looking (3, 4, 5), else 6."""
    codes = [finding.code for finding in findings if finding.state is State.WRONG]
    return next((code for code in codes if code != FOUND), FOUND if codes else 0)
