"""A report's SQL with its named parameters, ``:since``, in the form that each kind of database takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.reports.outline import Type

#: Texts, quoted names and comments, in which nothing is a parameter; casts; parameters; what must not be there.
_TOKENS = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$
    | (?P<comment>--[^\n]*|/\*.*?\*/) | :: | :(?P<name>[a-z_][a-z0-9_]*) | (?P<refused>;|\$\d+)""",
    re.VERBOSE | re.DOTALL,
)
_BEGINNING = re.compile(r"\s*\(*\s*(select|with|values|table)\b", re.IGNORECASE)

#: The types of parameters as PostgreSQL knows them.
_CASTS: Mapping[Type, str] = {
    Type.TEXT: "text",
    Type.INTEGER: "bigint",
    Type.DECIMAL: "numeric",
    Type.NUMBER: "double precision",
    Type.BOOLEAN: "boolean",
    Type.DATE: "date",
    Type.TIMESTAMP: "timestamptz",
}


class BadStatement(ValueError):
    """The SQL cannot be that of a report; the text says why."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One query: *texts*, and between each two of them the parameter of *names* at that place."""

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, sql: str) -> Statement:
        """Read *sql*. Raises ``BadStatement`` for what is no single query."""
        sql = sql.strip().removesuffix(";")
        texts, names, plain, end = [], [], "", 0
        for token in _TOKENS.finditer(sql):
            if token["refused"]:
                raise BadStatement(_refusal(token["refused"]))
            if token["comment"]:
                plain += sql[end : token.start()] + " "
            elif token["name"]:
                texts.append(plain + sql[end : token.start()])
                names.append(token["name"])
                plain = ""
            else:
                plain += sql[end : token.end()]
            end = token.end()
        texts.append(plain + sql[end:])
        if not _BEGINNING.match(texts[0]):
            raise BadStatement("it must be one query, which begins with SELECT or WITH")
        return cls(tuple(texts), tuple(names))

    def described(self) -> Statement:
        """A query for the columns alone, without any row."""
        first, last = f"SELECT * FROM ({self.texts[0]}", ") AS report LIMIT 0"
        return Statement(
            (first + last,) if len(self.texts) == 1 else (first, *self.texts[1:-1], self.texts[-1] + last), self.names
        )

    def for_sqlite(self) -> str:
        """The query with its parameters as ``:name``."""
        return self._joined([f":{name}" for name in self.names])

    def for_postgres(self, types: Mapping[str, Type]) -> tuple[str, list[str]]:
        """The query with its parameters as ``$1::date``, and their names in the order of their numbers.

        The cast is there because PostgreSQL could not always tell what NULL is.
        """
        order = list(dict.fromkeys(self.names))
        marks = [f"${order.index(name) + 1}::{_CASTS[types[name]]}" for name in self.names]
        return self._joined(marks), order

    def _joined(self, marks: list[str]) -> str:
        return "".join(text + mark for text, mark in zip(self.texts, [*marks, ""], strict=True))


def _refusal(token: str) -> str:
    return "it must be one query, without ;" if token == ";" else f"write :name for a parameter, not {token}"
