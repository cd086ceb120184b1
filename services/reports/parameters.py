"""The parameters of a report: what a message may say, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from penstock.topology.form import near_or_all
from services.reports.outline import Type, Value
from services.reports.spelling import spelled

#: A parameter that every report has: when its job was first published. So a report about yesterday stays one about
#: that day, however late it is made or made again.
PUBLISHED = "published"

#: Whole numbers beyond are none to a database.
_LARGEST = 2**63

_EXPECTED: Mapping[Type, str] = {
    Type.TEXT: "a text",
    Type.INTEGER: "a whole number",
    Type.DECIMAL: 'a number, best as a text such as "12.50"',
    Type.NUMBER: "a number",
    Type.BOOLEAN: "true or false",
    Type.DATE: "a date such as 2026-07-31",
    Type.TIMESTAMP: "an instant with its zone, such as 2026-07-31T08:00:00Z",
}


class BadArguments(Exception):
    """What a message says does not fit the report's parameters; the text names every problem, in one line."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. *optional*: without a value it is *default*. *choices*: it can be nothing else."""

    name: str
    type: Type
    optional: bool = False
    default: Value = None
    choices: tuple[Value, ...] = ()

    def read(self, given: object) -> Value:
        """What *given* is, as JSON or YAML gave it. Raises ``ValueError`` with what it should be."""
        value = read_as(self.type, given)
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(map(spelled, self.choices))}")
        return value


def read_as(type_: Type, given: object) -> Value:
    """*given* as a value of *type_*. Raises ``ValueError`` with what it should be."""
    try:
        value = _read(type_, given)
    except (ValueError, ArithmeticError):  # an instant may be out of range once it is in UTC
        value = None
    if value is None:
        raise ValueError(f"must be {_EXPECTED[type_]}")
    return value


def read_arguments(parameters: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, Value]:
    """A value for each of the *parameters*. Raises ``BadArguments``."""
    problems = [f"{name}: no such parameter{near_or_all(name, parameters)}" for name in given if name not in parameters]
    values: dict[str, Value] = {}
    for name, parameter in parameters.items():
        value = given.get(name)
        if value is None and parameter.optional:
            values[name] = parameter.default
            continue
        try:
            values[name] = parameter.read(value)
        except ValueError as error:
            problems.append(f"{name} {'is missing: it ' if value is None else ''}{error}")
    if problems:
        raise BadArguments("; ".join(problems))
    return values


def _read(type_: Type, given: object) -> Value:
    """None for what is of another type. Raises ``ValueError``, ``ArithmeticError``."""
    match type_, given:
        case Type.BOOLEAN, bool():
            return given
        case _, bool():
            return None
        case Type.TEXT, str():
            return given
        case Type.INTEGER, int():
            return given if abs(given) < _LARGEST else None
        case Type.DECIMAL, int() | float() | str():
            number = Decimal(str(given))
            return number if number.is_finite() and abs(number.adjusted()) < 100 else None
        case Type.NUMBER, int() | float():
            return float(given) if abs(given) < 1e300 else None
        case Type.DATE, str():
            return date.fromisoformat(given)
        case Type.TIMESTAMP, str():
            instant = datetime.fromisoformat(given)
            return instant.astimezone(UTC) if instant.tzinfo else None
    return None
