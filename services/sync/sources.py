"""The sync's sources, from a YAML file: which APIs it pulls, how they page, and what their items look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from penstock import ConfigError
from penstock.pacing.rate_limits import per_second
from penstock.topology.form import Form
from penstock.topology.strict_yaml import Node, parse, read_text

#: What a field may be, and the Python types that JSON gives it.
TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "list": (list,),
    "any": (object,),
}
#: Before a field that may be missing or null.
_OPTIONAL = "optional "

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_HOST = re.compile(r"[a-z0-9.-]{1,253}(:\d{1,5})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_FIELDS = ("url", "items", "key", "fields", "next", "parameter", "token", "redirects")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value of an answer: its *path* of names, its *type*, and whether it may be missing or null."""

    path: tuple[str, ...]
    type: str = "any"
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One paged API, whose pages only ever grow at their end.

    *items*: where an answer has its list (nowhere: it is one). *key*: the field that tells items apart. *following*:
    where an answer says which page is next (None: in its Link header, RFC 8288), a token for *parameter* or, without
    one, a URL. *token*: the environment variable with a bearer token. *redirects*: further hosts it may lead to.
    """

    name: str
    url: str
    key: str
    fields: Mapping[str, Wanted]
    items: tuple[str, ...] = ()
    following: Wanted | None = None
    parameter: str | None = None
    token: str | None = None
    redirects: tuple[str, ...] = ()

    @property
    def scheme(self) -> str:
        """``https`` or ``http``; the only one it is asked by."""
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        """Where it is, with its port unless that is the usual one."""
        return urlsplit(self.url).netloc.removesuffix({"https": ":443", "http": ":80"}[self.scheme])


@dataclass(frozen=True, slots=True)
class Sources:
    """All sources by name, and how many requests a second some hosts may be asked."""

    by_name: Mapping[str, Source] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


def read_sources(path: Path) -> Sources:
    """Read the file at *path*. Raises ``ConfigError`` with all its problems, each as ``file:line: what is wrong``."""
    return parse_sources(read_text(path), str(path))


def parse_sources(text: str, file: str = "sync.yaml") -> Sources:
    """Read *text*; *file* is its name in errors. Raises as ``read_sources`` does."""
    form = Form(file)
    top = form.fields(parse(text, file), ("hosts", "sources"), "the file")
    rates = {host: _host(form, host, key, node) for host, key, node in form.entries(top.get("hosts"), "hosts")}
    found = {name: _source(form, name, key, node) for name, key, node in form.entries(top.get("sources"), "sources")}
    if form.problems:
        raise ConfigError(*form.problems)
    return Sources(found, rates)


def _host(form: Form, name: str, key: Node, node: Node) -> float:
    if not _HOST.fullmatch(name):
        form.problem(key, f"host {name!r:.80}: not a host such as api.example.org or localhost:8080")
    rate = form.fields(node, ("rate",), f"host {name}").get("rate")
    if rate is None:
        form.problem(key, f"host {name}: rate is missing, such as 5/s")
        return 1.0
    try:
        return per_second(form.text(rate, f"host {name}: rate"))
    except ValueError as error:
        form.problem(rate, f"host {name}: {error}")
        return 1.0


def _source(form: Form, name: str, key: Node, node: Node) -> Source:
    what = f"source {name}"
    if not _NAME.fullmatch(name):
        form.problem(key, f"{what:.80}: a name has a-z, 0-9, _ and -, and begins with a letter")
    given = form.fields(node, _FIELDS, what)
    for missing in [each for each in ("url", "key", "fields") if each not in given]:
        form.problem(key, f"{what}: {missing} is missing")
    texts = {
        field: form.text(given[field], f"{what}: {field}") for field in given if field not in ("fields", "redirects")
    }
    fields = {
        field: _wanted(form, value, f"{what}: field {field}", (field,))
        for field, _, value in form.entries(given.get("fields"), f"{what}: fields")
    }
    source = Source(
        name,
        url=texts.get("url", ""),
        key=texts.get("key", ""),
        fields=fields,
        items=tuple(texts["items"].split(".")) if texts.get("items") else (),
        following=_following(texts.get("next")),
        parameter=texts.get("parameter"),
        token=texts.get("token"),
        redirects=tuple(host for host, _ in form.texts(given.get("redirects"), f"{what}: redirects")),
    )
    for named, words in _problems(source):
        form.problem(given.get(named, key), f"{what}: {words}")
    return source


def _wanted(form: Form, node: Node, what: str, path: tuple[str, ...]) -> Wanted:
    word = form.text(node, what)
    named = word.removeprefix(_OPTIONAL)
    if word and named not in TYPES:
        form.problem(
            node, f"{what} cannot be {word!r:.40}; it is one of {', '.join(TYPES)}, with {_OPTIONAL}before it or not"
        )
    return Wanted(path, named if named in TYPES else "any", word.startswith(_OPTIONAL))


def _following(text: str | None) -> Wanted | None:
    if not text:
        return None
    return Wanted(tuple(text.removeprefix(_OPTIONAL).split(".")), optional=text.startswith(_OPTIONAL))


def _problems(source: Source) -> list[tuple[str, str]]:
    """What is wrong with a source that has all its fields, as (field, what)."""
    found = []
    key = source.fields.get(source.key)
    if source.key and source.fields and (key is None or key.optional or key.type not in ("text", "integer")):
        found.append(("key", f"key {source.key!r:.40} must be one of its fields, a text or an integer"))
    if source.url and not _is_plain(source.url):
        found.append(("url", "url must be such as https://api.example.org/v1/orders, without user and fragment"))
    if source.parameter and source.following is None:
        found.append(("parameter", "parameter is for what `next` names; without it the Link header has a whole URL"))
    if source.token and not _VARIABLE.fullmatch(source.token):
        found.append(("token", "token is the name of an environment variable, never the token itself"))
    if any(not _HOST.fullmatch(host) for host in source.redirects):
        found.append(("redirects", "redirects are hosts such as files.example.org"))
    return found


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(_HOST.fullmatch(parts.netloc)) and not parts.fragment
