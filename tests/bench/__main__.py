"""The benchmark's command line: ``python -m tests.bench``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from penstock.errors import PenstockError
from tests.bench import brokers, machine, profiling, report, results, rivals
from tests.bench.entrants import c_ceiling
from tests.bench.experiments import Bench
from tests.bench.lineup import ENTRANTS
from tests.bench.measures import GROUPS, RIVALS, Experiment, chosen
from tests.bench.processes import EntrantError
from tests.bench.profiling import Profiling
from tests.bench.stores import Stores

#: --quick: one round with a quarter of the messages; --profile: one with more of them, so that starting does not count.
_QUICK = 4
_PROFILED = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 0 when every entrant answered."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that entrants and brokers are stopped
    console = Console(width=None if sys.stdout.isatty() else 160)
    if asked.render:
        report.PAGE.write_text(report.page(results.load()))
        return 0
    if asked.profile or set(asked.who) & set(RIVALS):
        rivals.ensure_installed()
    asked.who = _present(asked.who, console)
    profiler = Profiling(asked.profile) if asked.profile else None
    measured, failed = {}, 0
    with Stores() as stores:
        for series in asked.brokers:
            try:
                with brokers.running(series, dict(asked.broker_url)) as broker:
                    console.print(f"RabbitMQ {broker.version}")
                    gathered, failures = _run(Bench(broker.url, stores, profiler), asked, console)
            except PenstockError as error:
                console.print(f"[red]RabbitMQ {series}: {error}[/]")
                failed += 1
                continue
            measured[broker.series] = gathered.medians()
            failed += failures
    report.show(console, measured)
    if asked.write or _whole(asked):
        _write(measured)
    return 1 if failed else 0


def _present(who: Sequence[str], console: Console) -> tuple[str, ...]:
    """Everyone of *who* who can run here: the C client needs a compiler and librabbitmq."""
    if "c" in who and not c_ceiling.available():
        console.print("without the C client: it needs cc and librabbitmq-dev")
        return tuple(entrant for entrant in who if entrant != "c")
    return tuple(who)


def _run(bench: Bench, asked: argparse.Namespace, console: Console) -> tuple[results.Gathered, int]:
    gathered, failures = results.Gathered(), 0
    for experiment in _experiments(asked):
        for turn, who in turns(experiment, asked.who):
            try:
                answer = bench.run(ENTRANTS[who], experiment)
            except EntrantError as error:
                console.print(f"  [red]{experiment.name} {who}: {error}[/]")
                failures += 1
                continue
            gathered.add(experiment, who, answer)
            figures = ", ".join(f"{name} {value:,.2f}" for name, value in answer.items())
            console.print(f"  {experiment.name} {who} {turn + 1}: {figures}", highlight=False)
            if bench.profiling is not None and experiment.profiled:
                console.print(bench.profiling.summary(ENTRANTS[who], experiment.name), highlight=False, markup=False)
    return gathered, failures


def turns(experiment: Experiment, who: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The rounds of *experiment*: in each, everyone of *who* that has one left, so that drift meets all alike."""
    for turn in range(max(experiment.rounds, experiment.rival_rounds)):
        for entrant in experiment.who:
            if entrant in who and turn < experiment.rounds_of(entrant):
                yield turn, entrant


def _experiments(asked: argparse.Namespace) -> Iterator[Experiment]:
    for experiment in chosen(asked.only):
        rounds = asked.rounds or (1 if asked.quick or asked.profile else 0)
        if rounds:
            experiment = replace(experiment, rounds=rounds, rival_rounds=rounds)
        share = 1 / _QUICK if asked.quick else _PROFILED if asked.profile else 1
        yield replace(experiment, count=int(experiment.count * share))


def _whole(asked: argparse.Namespace) -> bool:
    return not (asked.only or asked.quick or asked.profile or set(ENTRANTS) - set(asked.who) - {"c"})


def _write(measured: dict[str, results.Figures]) -> None:
    kept = results.load() if results.FILE.exists() else results.document([], {})
    groups = {GROUPS[name] for figures in measured.values() for name in figures}
    taken = results.setting(groups, machine.machine(), machine.versions())
    written = results.merged(kept, measured, taken)
    results.save(written)
    report.PAGE.write_text(report.page(written))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _entrants(text: str) -> tuple[str, ...]:
    if unknown := set(_names(text)) - set(ENTRANTS):
        raise argparse.ArgumentTypeError(f"no entrant {', '.join(sorted(unknown))}; there are {', '.join(ENTRANTS)}")
    return _names(text)


def _series(text: str) -> tuple[str, ...]:
    if unknown := set(_names(text)) - set(brokers.INSTALLATIONS):
        known = ", ".join(brokers.INSTALLATIONS)
        raise argparse.ArgumentTypeError(f"no RabbitMQ {', '.join(sorted(unknown))}; there are {known}")
    return _names(text)


def _pair(text: str) -> tuple[str, str]:
    series, separator, url = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("expected SERIES=URL, such as 3.10=amqp://guest:guest@127.0.0.1:5672/")
    return series, url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", type=_names, default=(), metavar="MEASURE,…", help="these measures only")
    parser.add_argument("--who", type=_entrants, default=tuple(ENTRANTS), metavar="WHO,…", help="these entrants only")
    parser.add_argument(
        "--brokers", type=_series, default=brokers.PUBLISHED, metavar="3.10,4.3", help="these brokers only"
    )
    parser.add_argument(
        "--broker-url", type=_pair, action="append", default=[], metavar="SERIES=URL", help="use a broker that runs"
    )
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds for everyone")
    parser.add_argument("--quick", action="store_true", help="one round with a quarter of the messages")
    parser.add_argument("--profile", choices=profiling.KINDS, nargs="?", const="stacks", help=profiling.HELP)
    parser.add_argument("--write", action="store_true", help="write a partial run into the results too")
    parser.add_argument("--render", action="store_true", help="only write docs/benchmarks.md again from the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
