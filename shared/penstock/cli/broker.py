"""``penstock broker``: a private RabbitMQ for development, run, found again and stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from penstock.errors import BrokerError
from penstock.testing.broker_files import NodeFolder
from penstock.testing.broker_node import BrokerInfo, PrivateBroker

DEFAULT_FOLDER = Path(".penstock/broker")

_EXAMPLES = """
\b
Examples:
  penstock broker run                              until Ctrl-C
  penstock broker run --detach                     goes on by itself; data stays in .penstock/broker
  . .penstock/broker/env                           the other commands then use this node
  penstock broker stop
"""

app = typer.Typer(
    help="Run a private RabbitMQ for development.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the node keeps everything.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("run")
def run_command(
    folder: Folder = DEFAULT_FOLDER,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running and return.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the node, say how to reach it, and stop it at Ctrl-C. Data, ports and password stay in DIR."""
    node = PrivateBroker(folder, detached=detach)
    running = node.status()
    if running is not None and not detach:
        raise BrokerError(f"{_named(running)} runs already; penstock broker stop --dir {folder} ends it")
    with _interruptible():
        try:
            _show(_started(node), as_json)
            ended = 0 if detach else node.wait()
        except KeyboardInterrupt:
            node.stop()
            return
    if ended:
        raise BrokerError(f"the RabbitMQ node in {folder} ended by itself, exit code {ended}")


@app.command("status")
def status_command(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Say how to reach the node; exit code 3 when none runs."""
    running = PrivateBroker(folder).status()
    if running is not None:
        _show(running, as_json)
        return
    if not as_json:
        raise BrokerError(f"no private RabbitMQ runs in {folder}; penstock broker run --dir {folder} starts one")
    typer.echo(json.dumps({"running": False, "folder": str(folder.resolve())}))
    raise typer.Exit(BrokerError.exit_code)


@app.command("stop")
def stop_command(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Stop the node, whoever started it; its data stays. Nothing happens when none runs."""
    node = PrivateBroker(folder)
    running = node.status()
    node.stop()
    if as_json:
        typer.echo(json.dumps({"stopped": running is not None, "folder": str(folder.resolve())}))
    else:
        typer.echo(f"stopped {_named(running)}" if running else f"no private RabbitMQ runs in {folder}")


def _started(node: PrivateBroker) -> BrokerInfo:
    try:
        return node.start()
    except BrokerError as error:
        for note in getattr(error, "__notes__", ()):
            typer.echo(note, err=True)
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: by stopping the node."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _named(info: BrokerInfo) -> str:
    return f"RabbitMQ {info.version} in {info.folder} (pid {info.pid})"


def _show(info: BrokerInfo, as_json: bool) -> None:
    facts = _facts(info)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"{_named(info)}")
    for name, key in _LINES:
        typer.echo(f"  {name:<14}{facts[key]}")


_LINES = (
    ("AMQP", "amqp_url"),
    ("management", "management_url"),
    ("user", "user"),
    ("password in", "password_file"),
    ("for a shell", "env_file"),
)


def _facts(info: BrokerInfo) -> dict[str, object]:
    """What may be shown: never the password, only where it is."""
    return {
        "running": True,
        "folder": str(info.folder),
        "version": info.version,
        "node": info.node,
        "pid": info.pid,
        "amqp_url": f"amqp://{info.user}:***@{info.host}:{info.ports.amqp}/",
        "management_url": info.management_url,
        "prometheus_url": f"http://{info.host}:{info.ports.prometheus}/metrics",
        "user": info.user,
        "password_file": str(NodeFolder(info.folder).password_file),
        "url_file": str(info.url_file),
        "env_file": str(info.env_file),
    }
