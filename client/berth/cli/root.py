"""The command table, and the one place where errors become a line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_group

import berth
from berth.errors import ApiError, BerthError, ExitCode


class Entry(NamedTuple):
    """Where a command lives and what it does, in one line. ``group``: the module as a whole is a group of commands."""

    module: str
    help: str
    group: bool = False


SECTIONS: dict[str, dict[str, Entry]] = {
    "Jobs": {
        "run": Entry("submit", "Run a container image and follow it to its end."),
        "submit": Entry("submit", "Submit a job file, or several jobs at once."),
        "sbatch": Entry("submit", "Submit a Slurm batch script to run inside a container image."),
        "plan": Entry("submit", "Say where a job file's job would go, and why; submit nothing."),
        "resubmit": Entry("submit", "Submit again what a job was asked to do."),
        "ps": Entry("jobs", "List jobs, the newest first."),
        "show": Entry("jobs", "Show one job."),
        "why": Entry("jobs", "Explain why a job goes where it goes."),
        "logs": Entry("jobs", "Print a job's log; -f follows it."),
        "wait": Entry("jobs", "Wait for jobs to end."),
        "cancel": Entry("jobs", "Cancel jobs."),
        "output": Entry("output", "List and fetch what a job wrote.", group=True),
    },
    "Pods": {
        "pods": Entry("pods", "Long-lived containers with addresses: databases, notebooks, services.", group=True),
    },
    "Systems, apps and users": {
        "systems": Entry("systems", "The systems that jobs run on, and your credentials there.", group=True),
        "apps": Entry("apps", "Named, versioned images and how to run them.", group=True),
        "images": Entry(
            "images", "What images are and need, where they are, and your logins for registries.", group=True
        ),
        "user": Entry("users", "The users of a server, for administrators.", group=True),
    },
    "This computer": {
        "login": Entry("account", "Log in to a server and remember it."),
        "logout": Entry("account", "Forget the login to a server."),
        "whoami": Entry("account", "Show which server and user commands use."),
        "doctor": Entry("doctor", "Check server, login, systems, credentials and clock, and say the fix."),
        "completion": Entry("topics", "Print a script that completes commands in your shell."),
        "help": Entry("topics", "Explain a topic: exit-codes, job-file, sbatch, environment."),
    },
    "Running a server (needs berth-hpc)": {
        "up": Entry("server", "Start a whole server: API and reconcilers in one process."),
        "api": Entry("server", "Start the API alone."),
        "reconcile": Entry("server", "Start the reconcilers alone."),
        "db": Entry("database", "Look after the server's database.", group=True),
        "key": Entry("key", "Look after the key that wraps the server's secrets.", group=True),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Commands(MutableMapping[str, Any]):
    """Commands by name, each loaded when it is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            entry = COMMANDS[name]
            group = get_group(import_module(f"berth.cli.{entry.module}").app)
            self._loaded[name] = group if entry.group else group.commands[name]
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Root(TyperGroup):
    """The top of the command line; help comes from the table, so that it loads no command."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BerthError as error:
            print(described(error), file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("berth: interrupted", file=sys.stderr)
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def described(error: BerthError) -> str:
    """One line: what is wrong and what to do. Below it, where a server says so, why each system is impossible."""
    from berth.cli.render import rejection_lines, safe

    line = f"berth: {safe(error.message)}" + (f"; {error.fix}" if error.fix else "")
    if isinstance(error, ApiError):
        return "\n".join([line, *rejection_lines(error.rejections)])
    return line


app = typer.Typer(
    cls=Root,
    name="berth",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command has examples: berth COMMAND --help. Exit codes: berth help exit-codes.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"berth {berth.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run container jobs on the system and queue where the result comes soonest."""
