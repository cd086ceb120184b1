"""API tokens: who may do what with which kinds. Only their hashes are kept, in a file."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import orjson
import structlog

from penstock import ConfigError
from penstock.topology.form import Form, near_or_all
from penstock.topology.matching import matches
from penstock.topology.spec import pattern_problem
from penstock.topology.strict_yaml import Items, Node, parse, read_text

#: What a token begins with, so that scanners for lost secrets can know it.
PREFIX = "penstock_"
#: Seconds between two looks at whether the file has changed.
LOOK_EVERY = 1.0

#: Every kind.
ALL = "#"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_HEADER = "# API tokens of the intake: only their hashes are here. Written by: python -m services.intake token\n"

_log = structlog.stdlib.get_logger("penstock.intake")


class Action(StrEnum):
    """What a token may allow."""

    PUBLISH = "publish"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: *name*, the *kinds* (patterns as of topic bindings) and what may be done with them."""

    name: str
    kinds: tuple[str, ...]
    actions: frozenset[Action]

    def may(self, action: Action, kind: str) -> bool:
        """Whether this client may do it."""
        return action in self.actions and _fits(self.kinds, kind)


#: Whoever asks where no tokens are: only this machine does.
ANYBODY = Client("anybody", (ALL,), frozenset(Action))


class Tokens:
    """The tokens in the file at *path*, read again when it changes; a broken file is told of, and the old ones count.

    Raises ``ConfigError`` at first for a file that cannot be read or holds no token. One event loop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._clients = read_tokens(path)
        self._looked = time.monotonic()
        if not self._clients:
            raise ConfigError(f"{path} holds no token: make one with python -m services.intake token NAME")

    def client(self, token: str) -> Client | None:
        """Whose *token* it is; None when it is nobody's. What is compared are hashes: time tells nothing of tokens."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._look()
        return self._clients.get(_hash(token))

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._clients = read_tokens(self._path)
        except ConfigError as error:
            _log.error("the tokens cannot be read; the old ones count", problems=list(error.problems))
        else:
            _log.info("tokens read", tokens=len(self._clients))


def read_tokens(path: Path) -> Mapping[str, Client]:
    """The clients in the file at *path*, by the hashes of their tokens. Raises ``ConfigError`` with all its problems.

    A name may be there more than once: a token is replaced by adding the next one and taking the old one away.
    """
    file, text = str(path), read_text(path)
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return {}  # all of them were taken away
    node, form = parse(text, file), Form(file)
    clients: dict[str, Client] = {}
    for entry in _entries(form, node):
        _read(form, entry, clients)
    if form.problems:
        raise ConfigError(*form.problems)
    return clients


def add_token(path: Path, name: str, kinds: Sequence[str], actions: Sequence[Action]) -> str:
    """Make a token for *name*, add its hash to the file at *path* (made when missing) and return the token.

    This is the only time it is shown. Raises ``ConfigError`` for what cannot be meant, and leaves the file as it was.
    """
    problems = [problem for problem in (_name_problem(name), *map(_kinds_problem, kinds)) if problem]
    if problems:
        raise ConfigError(*problems)
    token = PREFIX + secrets.token_urlsafe(32)
    line = orjson.dumps({"name": name, "hash": _hash(token), "kinds": list(kinds), "may": list(actions)}).decode()
    try:
        new = not path.exists() or not path.read_bytes().strip()
        if not new:
            read_tokens(path)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as out:
            out.write(f"{_HEADER if new else ''}- {line}\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return token


def _entries(form: Form, node: Node) -> Sequence[Node]:
    if isinstance(node, Items):
        return node.nodes
    form.problem(node, "the tokens must be a list")
    return ()


def _read(form: Form, node: Node, clients: dict[str, Client]) -> None:
    fields = form.fields(node, ("name", "hash", "kinds", "may"), "a token")
    missing = [field for field in ("name", "hash", "kinds", "may") if field not in fields]
    if missing:
        form.problem(node, f"a token has no {', '.join(missing)}")
        return
    name, digest = form.text(fields["name"], "name"), form.text(fields["hash"], "hash")
    form.problem(fields["name"], _name_problem(name) if name else None)
    if digest and not _HASH.fullmatch(digest):
        form.problem(fields["hash"], "hash must be sha256: and 64 hexadecimal digits")
    if digest in clients:
        form.problem(fields["hash"], "this hash is here twice")
    kinds = form.texts(fields["kinds"], "kinds")
    for pattern, at in kinds:
        form.problem(at, _kinds_problem(pattern))
    clients[digest] = Client(name, tuple(pattern for pattern, _ in kinds), _actions(form, fields["may"]))


def _actions(form: Form, node: Node) -> frozenset[Action]:
    found = form.texts(node, "may")
    for word, at in found:
        if word not in tuple(Action):
            form.problem(at, f"nobody may {word}{near_or_all(word, tuple(Action))}")
    return frozenset(Action(word) for word, _ in found if word in tuple(Action))


def _name_problem(name: str) -> str | None:
    return None if _NAME.fullmatch(name) else f"{name[:40]!r} is not a name of letters, digits, '.', '_' and '-'"


def _kinds_problem(pattern: str) -> str | None:
    return None if pattern == ALL else pattern_problem(pattern)


def _hash(token: str) -> str:
    # No salt and no slow hash: a token is 256 random bits, of which nobody has a list.
    return f"sha256:{sha256(token.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(4096)
def _fits(patterns: tuple[str, ...], kind: str) -> bool:
    return any(matches(pattern, kind) for pattern in patterns)
