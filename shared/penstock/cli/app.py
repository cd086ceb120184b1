"""The commands of ``penstock`` under one roof; each is imported only when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, cast  # commands are click objects of whichever click typer brings

import typer
from typer.core import TyperGroup

from penstock import __version__
from penstock.errors import UsageError

#: Command → what it does, in the order of ``--help``, which would else have to import them all.
_COMMANDS = {
    "publish": "Publish one job.",
    "worker": "Run a worker until it is told to stop.",
    "scheduler": "Publish what falls due by a file of schedules.",
    "schedule": "Check schedules, look at them, pause them, make up for a past time.",
    "status": "Show on one screen what waits, runs and fails.",
    "queues": "Show every work queue.",
    "workers": "Show who consumes the work queues.",
    "doctor": "Check everything that Penstock needs here.",
    "dead": "Look at dead letters, and put them right.",
    "store": "Make, look at and correct what is remembered of jobs.",
    "outbox": "Publish what waits in an outbox, and look at it.",
    "topology": "Compare, create and export what must exist on the broker.",
    "catalogue": "Check that kinds, queues, workers and handlers fit together.",
    "broker": "Run a private RabbitMQ for development.",
}

#: Modules of ``penstock.cli`` that are not called as their command, whose name a library's module has already.
_MODULES = {"catalogue": "catalogue_check"}

#: The command line's own word for wrong usage, found by the class typer exports.
_WrongUsage: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")

_EXAMPLES = """
\b
Examples:
  penstock broker run --detach                     a private RabbitMQ for development
  penstock topology apply                          declare rabbitmq/topology.yaml
  penstock worker services.mailer.app:build        run a worker
  penstock publish email.send '{"to": "ada@example.org"}'
  penstock dead list --queue email                 what could not be done, and why
"""


class _Commands(TyperGroup):
    """Imports a command when it is asked for: a worker never loads what the other commands need."""

    def list_commands(self, _: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"penstock.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, _: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = cast(Any, dict.fromkeys(_COMMANDS))  # only the names are read, to suggest the near one
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="penstock",
    help="Background jobs on RabbitMQ.",
    epilog=_EXAMPLES,
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from (also PENSTOCK_DEBUG=1).")
    ] = False,
) -> None:
    """Background jobs on RabbitMQ."""


def invoke(words: Sequence[str]) -> int:
    """Run one command line and return its exit code. Raises ``UsageError`` in one line when it is not understood."""
    try:
        code = app(list(words), prog_name="penstock", standalone_mode=False)
    except _WrongUsage as error:
        raise UsageError(_one_line(error)) from error
    return code if isinstance(code, int) else 0


def _one_line(error: Any) -> str:
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "penstock"
    words = " ".join(str(error.format_message()).split())
    return f"{words.rstrip('.')} ({path} --help)"
