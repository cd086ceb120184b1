"""Reads ``topology.yaml`` into a ``Spec``, and tells every problem of the file at once, each with its line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from penstock.durations import duration
from penstock.errors import ConfigError
from penstock.topology.form import Form
from penstock.topology.spec import (
    DELIVERY_LIMIT,
    QueueSpec,
    Role,
    Spec,
    UserSpec,
    name_problem,
    overlap,
    pattern_problem,
    user_problem,
)
from penstock.topology.strict_yaml import Items, Node, Scalar, parse, read_text

DEFAULT_FILE = Path("rabbitmq/topology.yaml")

_FIELDS = ("vhost", "queues", "users", "aliases")

MIN_TIMEOUT = timedelta(minutes=1)  # brokers before 4.3 look once a minute
MAX_TIMEOUT = timedelta(days=30)


def read_spec(path: Path) -> Spec:
    """Read the file at *path*. Raises ``ConfigError`` with all its problems, each as ``file:line: what is wrong``."""
    return parse_spec(read_text(path), str(path))


def parse_spec(text: str, file: str = "topology.yaml") -> Spec:
    """Read *text*; *file* is its name in errors. Raises ``ConfigError`` as ``read_spec`` does.

    ``extends: FILE``, beside *file*, lets everything of that file count as well; a file that is extended extends none.
    """
    form = Form(file)
    root = parse(text, file)
    fields = form.fields(root, ("extends", *_FIELDS), "the file")
    base = _base(form, fields["extends"], Path(file).parent) if "extends" in fields else Spec(())
    return _checked(form, _spec(form, root, fields, base))


def _base(form: Form, node: Node, folder: Path) -> Spec:
    name = form.text(node, "extends")
    if not name:
        return Spec(())
    file = str(folder / name)
    root, own = parse(read_text(folder / name), file), Form(file)
    return _checked(own, _spec(own, root, own.fields(root, _FIELDS, "a file that is extended"), Spec(())))


def _checked(form: Form, spec: Spec) -> Spec:
    if form.problems:
        raise ConfigError(*form.problems)
    return spec


def _spec(form: Form, root: Node, top: Mapping[str, Node], base: Spec) -> Spec:
    """What the fields *top* of the file say, and *base* before them."""
    queues = base.queues + tuple(
        _queue(form, *entry) for entry in _new(form, top, "queues", [queue.name for queue in base.queues])
    )
    if not any(queue.patterns for queue in queues):
        form.problem(top.get("queues", root), "queues: bind at least one, for example `queues: {email: [email.*]}`")
    spec = Spec(queues, vhost=form.text(top["vhost"], "vhost") if "vhost" in top else base.vhost)
    users = _new(form, top, "users", [user.name for user in base.users])
    aliases = _new(form, top, "aliases", [old for old, _ in base.aliases])
    return Spec(
        queues,
        users=base.users + tuple(_user(form, spec, *entry) for entry in users),
        aliases=base.aliases + tuple(_alias(form, spec, *entry) for entry in aliases),
        vhost=spec.vhost,
    )


def _new(form: Form, top: Mapping[str, Node], field: str, there: Collection[str]) -> Sequence[tuple[str, Node, Node]]:
    """The entries of a field; one that is *there* in the extended file is a problem: nothing of that is changed."""
    entries = form.entries(top.get(field), field)
    for name, key, _ in entries:
        if name in there:
            form.problem(key, f"{field}: {name} is in the extended file already")
    return entries


def _queue(form: Form, name: str, key: Node, node: Node) -> QueueSpec:
    form.problem(key, name_problem(name))
    what = f"queue {name}"
    if isinstance(node, Items):
        return QueueSpec(name, _patterns(form, node, what))
    fields = form.fields(node, ("binds", "delivery_limit", "consumer_timeout"), what)
    binds = fields.get("binds")
    everything = isinstance(binds, Scalar) and binds.value == "all"
    if binds is None:
        form.problem(key, f"{what}: say which kinds it takes, for example `{name}: [{name}.*]`")
    return QueueSpec(
        name,
        patterns=() if everything else _patterns(form, binds, f"{what}: binds (or the word all)"),
        everything=everything,
        delivery_limit=form.whole(
            fields.get("delivery_limit"), f"{what}: delivery_limit", 1, 1_000_000, default=DELIVERY_LIMIT
        ),
        consumer_timeout=_duration(form, fields.get("consumer_timeout"), f"{what}: consumer_timeout"),
    )


def _user(form: Form, spec: Spec, name: str, key: Node, node: Node) -> UserSpec:
    form.problem(key, user_problem(name))
    what = f"user {name}"
    fields = form.fields(node, ("publishes", "works", "role", "foreign"), what)
    user = UserSpec(
        name,
        publishes=_patterns(form, fields.get("publishes"), f"{what}: publishes", within=spec.patterns),
        works=_works(form, spec, fields.get("works"), what),
        role=_role(form, fields.get("role"), what),
        foreign=form.flag(fields.get("foreign"), f"{what}: foreign"),
    )
    if not fields.keys() & {"publishes", "works", "role"}:
        form.problem(key, f"{what}: say what it does: publishes, works or role")
    if "publishes" not in fields and (user.foreign or user.role is Role.SCHEDULER):
        form.problem(key, f"{what}: say which kinds it publishes")
    return user


def _alias(form: Form, spec: Spec, old: str, key: Node, node: Node) -> tuple[str, str]:
    form.problem(key, name_problem(old))
    names = [queue.name for queue in spec.queues]
    if old in names:
        form.problem(key, f"alias {old}: that is a queue of this file; an alias is the former name of one")
    return old, _one_of(form, node, names, f"alias {old}", "queue")


def _works(form: Form, spec: Spec, node: Node | None, what: str) -> tuple[str, ...]:
    names = [queue.name for queue in spec.queues]
    return tuple(
        _one_of(form, item, names, f"{what}: works", "queue") for _, item in form.texts(node, f"{what}: works")
    )


def _role(form: Form, node: Node | None, what: str) -> Role | None:
    if node is None:
        return None
    word = _one_of(form, node, list(Role), f"{what}: role", "role")
    return Role(word) if word else None


def _one_of(form: Form, node: Node, known: Collection[str], what: str, noun: str) -> str:
    word = form.text(node, what)
    if word in known:
        return word
    form.problem(node, f"{what}: there is no {noun} {word!r:.60}; there are {', '.join(known)}" if word else None)
    return ""


def _patterns(form: Form, node: Node | None, what: str, within: Sequence[str] | None = None) -> tuple[str, ...]:
    """The kind patterns of a list; with *within*, each must have kinds in common with one of those."""
    found = form.texts(node, what)
    for pattern, item in found:
        problem = pattern_problem(pattern)
        if problem is None and within is not None and not _shares(pattern, within):
            problem = f"no queue takes a kind of {pattern!r}"
        form.problem(item, problem and f"{what}: {problem}")
    return tuple(pattern for pattern, _ in found)


def _shares(pattern: str, others: Iterable[str]) -> bool:
    return any(overlap(pattern.split("."), other.split(".")) for other in others)


def _duration(form: Form, node: Node | None, what: str) -> timedelta | None:
    if node is None:
        return None
    try:
        length = duration(str(node.value)) if isinstance(node, Scalar) else timedelta(0)
    except ValueError:
        length = timedelta(0)
    if MIN_TIMEOUT <= length <= MAX_TIMEOUT:
        return length
    form.problem(node, f"{what} must be a time from 1m to 30d, such as 90s, 45m, 12h or 2d")
    return None
