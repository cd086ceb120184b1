"""What may stand in topology.yaml, and how everything else is refused: all at once, with file and line."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.topology.reading import parse_spec, read_spec
from penstock.topology.spec import QueueSpec, Role, UserSpec, overlap

FULL = """\
vhost: shop
queues:
  email: [email.*]
  reports:
    binds: [report.*, invoice.#]
    delivery_limit: 50
    consumer_timeout: 90m
  audit: {binds: all}
aliases: {mail: email}
users:
  orders: {publishes: [email.send]}
  legacy: {publishes: [invoice.#], foreign: true}
  mailer: {works: [email], publishes: [report.*]}
  clock: {role: scheduler, publishes: [report.*]}
  eye: {role: monitor}
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_spec(text, "t.yaml")
    return list(caught.value.problems)


def test_a_list_of_patterns_is_enough_for_a_queue() -> None:
    assert parse_spec("queues: {email: [email.*]}").queues == (QueueSpec("email", ("email.*",)),)


def test_everything_that_may_be_written_is_read() -> None:
    spec = parse_spec(FULL)
    assert spec.vhost == "shop"
    assert spec.queues[1] == QueueSpec(
        "reports", ("report.*", "invoice.#"), delivery_limit=50, consumer_timeout=timedelta(minutes=90)
    )
    assert spec.aliases == (("mail", "email"),)
    assert spec.users[1:4] == (
        UserSpec("legacy", publishes=("invoice.#",), foreign=True),
        UserSpec("mailer", publishes=("report.*",), works=("email",)),
        UserSpec("clock", publishes=("report.*",), role=Role.SCHEDULER),
    )


def test_a_queue_that_binds_all_takes_the_patterns_of_the_others() -> None:
    spec = parse_spec("queues: {a: [x.*, y.*], b: [y.*, z.one], audit: {binds: all}}")
    assert spec.patterns_of(spec.queues[2]) == ("x.*", "y.*", "z.one")


@pytest.mark.parametrize("pattern", ["#", "*", "*.*", "*.#", "#.#"])
def test_a_pattern_without_a_word_is_refused_since_it_would_make_every_typo_routable(pattern: str) -> None:
    assert "every misspelled kind routable" in problems_of(f"queues: {{a: ['{pattern}']}}")[0]


@pytest.mark.parametrize("pattern", ["Email.*", "email..x", ".email", "email.", "e-mail", "email.*x", "e mail", "é.*"])
def test_a_pattern_outside_the_alphabet_is_refused(pattern: str) -> None:
    assert "must be words of a-z" in problems_of(f"queues: {{a: ['{pattern}']}}")[0]


@pytest.mark.parametrize(
    "name", ["delay", "delayed", "delay.00-1s", "deliver", "dead", "email.dead", "unrouted", "scheduler"]
)
def test_reserved_queue_names_are_refused(name: str) -> None:
    assert "reserved" in problems_of(f"queues: {{{name}: [a.*]}}")[0]


@pytest.mark.parametrize("name", ["Email", "a b", "'a/b'", "'*'", "a..b"])
def test_queue_names_outside_the_alphabet_are_refused(name: str) -> None:
    assert "queue name" in problems_of(f"queues: {{{name}: [a.*]}}")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: the file is empty"),
        ("- a", "1: the file must be a mapping"),
        ("queues: {}", "1: queues: bind at least one"),
        ("users: {a: {role: monitor}}", "1: queues: bind at least one"),
        ("queues: {a: {binds: all}}", "1: queues: bind at least one"),
        ("queues:\n  a: [b.*]\n  a: [c.*]", "3: queues: a is here twice, first on line 2"),
        ("queues: {a: [b.*]}\nqueues: {c: [d.*]}", "2: the file: queues is here twice, first on line 1"),
        (
            "queues: {a: [b.*]}\nquues: {}",
            "2: the file: unknown key quues; known are extends, vhost, queues, users, aliases",
        ),
        ("queues:\n  a: {binds: [b.*], ttl: 3}", "2: queue a: unknown key ttl; known are binds, delivery_limit"),
        ("queues:\n  a: [b.*,\n      b.*]", "3: queue a: b.* is here twice"),
        ("queues: {a: b.*}", "1: queue a must be a mapping"),
        ("queues: {a: {binds: some}}", "1: queue a: binds (or the word all) must be a list"),
        ("queues: {a: {delivery_limit: 3}, b: [c.*]}", "1: queue a: say which kinds it takes"),
        ("queues: {a: []}", "1: queue a must be a list with at least one entry"),
        ("queues: {a: [1]}", "1: an entry of queue a must be a text, not 1 (quote it?)"),
        ("queues: {on: [b.*]}", "1: a key of queues must be a text, not True (quote it?)"),
        ("queues: {a: [[b]]}", "1: an entry of queue a must be a text"),
        ("queues: {a: {binds: [b.*], delivery_limit: -1}}", "1: queue a: delivery_limit must be a whole number from 1"),
        ("queues: {a: {binds: [b.*], delivery_limit: true}}", "1: queue a: delivery_limit must be a whole number"),
        ("queues: {a: {binds: [b.*], consumer_timeout: 30}}", "1: queue a: consumer_timeout must be a time from 1m"),
        ("queues: {a: {binds: [b.*], consumer_timeout: 59s}}", "1: queue a: consumer_timeout must be a time from 1m"),
        ("queues: {a: [b.*]}\naliases: {a: a}", "2: alias a: that is a queue of this file"),
        ("queues: {a: [b.*]}\naliases: {old: c}", "2: alias old: there is no queue 'c'; there are a"),
        ("queues: {a: [b.*]}\naliases: {dead: a}", "2: queue name 'dead' is reserved"),
        ("queues: {a: [b.*]}\nusers: {'a/b': {works: [a]}}", "2: user name 'a/b' may only have letters"),
        ("queues: {a: [b.*]}\nusers: {u: {}}", "2: user u: say what it does"),
        ("queues: {a: [b.*]}\nusers: {u: {works: [c]}}", "2: user u: works: there is no queue 'c'; there are a"),
        (
            "queues: {a: [b.*]}\nusers: {u: {role: king}}",
            "2: user u: role: there is no role 'king'; there are scheduler,",
        ),
        ("queues: {a: [b.*]}\nusers: {u: {role: scheduler}}", "2: user u: say which kinds it publishes"),
        ("queues: {a: [b.*]}\nusers: {u: {works: [a], foreign: true}}", "2: user u: say which kinds it publishes"),
        ("queues: {a: [b.*]}\nusers: {u: {publishes: [c.*]}}", "2: user u: publishes: no queue takes a kind of 'c.*'"),
        ("queues: {a: [b.*]}\nusers: {u: {publishes: [b.x], foreign: 1}}", "2: user u: foreign must be true or false"),
        ("queues: {a: [b.*]}\nvhost: 3", "2: vhost must be a text, not 3"),
        ("queues:\n  a: [b.*\n", "3: not YAML: "),
        ("queues: {a: [b.*]}\n\tx: 1", "2: not YAML: "),
        ("queues: {a: ['\x07']}", "1: not YAML: character"),
        ("queues: {a: [b.*]}\n---\nx: 1", "2: a second document begins here"),
        ("queues: {a: &p [b.*], c: *p}", "1: anchors and aliases"),
        ("queues: {a: [c.*, *.x]}", '1: YAML takes *.x for an alias; quote a text that begins with *, such as "*.x"'),
        ("queues: !!python/object:os.system {a: [b.*]}", "1: tags (tag:yaml.org,2002:python/object:os.system) are not"),
        ("queues:\n  <<: {a: [b.*]}", "2: queue name '<<' may only have"),
        ("queues: {a: [2024-99-99]}", "1: queue a: kind pattern '2024-99-99' must be words"),
        ("queues: {a: [" + "9" * 5000 + "]}", "1: queue a: kind pattern '9999"),
        ("queues: " + "[" * 100_000, "1: nested deeper than 12 levels"),
        ("queues: {a: [b.*]}\n#" + "x" * 1024 * 1024, "1: the file is larger than 1024 KiB"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_reason(text: str, words: str) -> None:
    assert any(problem.startswith(f"t.yaml:{words}") for problem in problems_of(text)), problems_of(text)


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "queues:\n  dead: [a.*]\n  b: ['#']\nusers:\n  u: {works: [c], speed: 9}\nx: 1\n"
    assert [problem.split(":")[1] for problem in problems_of(text)] == ["2", "3", "5", "5", "6"]


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{now}: &{now} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
        for last, now in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "anchors and aliases" in problems_of(bomb)[0]


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: No such file"):
        read_spec(tmp_path / "gone.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"queues:\n  a: [\xff]\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml:2: not UTF-8"):
        read_spec(broken)


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(b"\xef\xbb\xbfqueues: {email: [email.*]}\n")
    assert read_spec(file) == parse_spec("queues: {email: [email.*]}")


def test_a_file_that_extends_another_counts_both(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("vhost: shop\nqueues: {email: [email.*]}\nusers: {mailer: {works: [email]}}\n")
    file = tmp_path / "more.yaml"
    file.write_text(
        "extends: base.yaml\nqueues: {audit: {binds: all}}\nusers: {auditor: {works: [audit], publishes: [email.*]}}\n"
    )
    spec = read_spec(file)
    assert spec.vhost == "shop"
    assert [(queue.name, *spec.patterns_of(queue)) for queue in spec.queues] == [
        ("email", "email.*"),
        ("audit", "email.*"),
    ]
    assert spec.users == (
        UserSpec("mailer", works=("email",)),
        UserSpec("auditor", publishes=("email.*",), works=("audit",)),
    )


@pytest.mark.parametrize(
    ("base", "text", "words"),
    [
        (
            "queues: {email: [email.*]}",
            "extends: base.yaml\nqueues: {email: [mail.*]}",
            "more.yaml:2: queues: email is in",
        ),
        ("queues: {email: [#]}", "extends: base.yaml", "base.yaml:1: "),
        (
            "extends: more.yaml\nqueues: {email: [email.*]}",
            "extends: base.yaml",
            "base.yaml:1: a file that is extended: u",
        ),
        ("queues: {email: [email.*]}", "extends: other.yaml", "other.yaml: No such file or directory"),
        (
            "queues: {email: [email.*]}",
            "extends: [base.yaml]\nqueues: {a: [b.*]}",
            "more.yaml:1: extends must be a text",
        ),
    ],
)
def test_an_extension_that_does_not_fit_is_refused_with_line_and_reason(
    tmp_path: Path, base: str, text: str, words: str
) -> None:
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "more.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_spec(tmp_path / "more.yaml")
    assert any(problem.startswith(f"{tmp_path}/{words}") for problem in caught.value.problems), caught.value.problems


def test_without_pyyaml_the_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['yaml'] = None\n"
        "from penstock.errors import ConfigError\n"
        "from penstock.topology.reading import parse_spec\n"
        "try: parse_spec('queues: {}')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert "pip install 'penstock[worker]'" in done.stdout


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("email.*", "email.send", True),
        ("email.*", "email", False),
        ("email.#", "email", True),
        ("#.send", "email.*", True),
        ("a.#.b", "a.b", True),
        ("a.#", "*.c.b", True),
        ("a.*", "b.*", False),
        ("a.*.c", "a.#.d", False),
    ],
)
def test_patterns_overlap_when_some_key_fits_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one.split("."), other.split(".")) is expected
    assert overlap(other.split("."), one.split(".")) is expected
