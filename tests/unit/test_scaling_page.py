"""The example of docs/scaling.md: every partition has its queue, its worker and its part of the keys."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from penstock.reserve import Reserve
from penstock.topology.matching import matches
from penstock.topology.reading import parse_spec
from tests.support.processes import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text()
FILES = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture(name="stock")
def _stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's module."""
    (tmp_path / "stock.py").write_text(FILES["stock.py"])
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("stock")
    del sys.modules["stock"]


def test_each_partition_is_taken_by_one_queue_whose_worker_runs_it(
    stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_spec(FILES["topology.yaml"])
    for number, kind in enumerate(stock.UPDATES):
        monkeypatch.setenv("PARTITION", str(number))
        worker = stock.build()
        taking = [queue.name for queue in spec.queues if any(matches(each, kind.name) for each in queue.patterns)]
        assert taking == [worker.queue]
        assert [handler.kind.name for handler in worker.handlers] == [kind.name]
    assert set(spec.users[1].works) == {queue.name for queue in spec.queues}


def test_keys_are_spread_and_each_stays_where_it_is(stock: ModuleType) -> None:
    found = Counter(stock.update_of(f"article-{number}").name for number in range(4000))
    assert len(found) == 4
    assert min(found.values()) > 800
    assert stock.update_of("teapot").name == stock.update_of("teapot").name


def test_the_table_of_slots_says_what_a_worker_holds() -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) (ms|s|min) \| (\d+) \|", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for slots, time, unit, held in rows:
        reserve = Reserve(int(slots))
        for _ in range(640):
            reserve.held(10_000)
            reserve.ran(float(time) * {"ms": 0.001, "s": 1, "min": 60}[unit])
        assert reserve.prefetch == int(held), f"{slots} slots, {time} {unit}"
