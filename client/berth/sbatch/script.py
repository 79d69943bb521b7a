"""A batch script as a job: its options together with the command line's, and the command that runs its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from berth.errors import InvalidInput, UsageError
from berth.sbatch.asking import Asked
from berth.sbatch.options import How
from berth.sbatch.reading import CommandLine, parse_script

MAX_SCRIPT_BYTES = 48 * 1024
"""A job's notes, in which the script travels, hold 64 KiB."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A script as a job file's content, with what the caller wants to see. ``warnings`` name what is not taken over."""

    job: Mapping[str, Any]
    warnings: Sequence[str] = ()
    parsable: bool = False
    quiet: bool = False
    wait: bool = False
    test_only: bool = False


def submission(script: str, name: str, command_line: CommandLine, environ: Mapping[str, str]) -> Submission:
    """The job that a script and sbatch's command line ask for together; the command line wins.

    name: the script's file name. environ: where ``--export=NAME`` takes values from.
    UsageError names the option and what to write instead.
    """
    everything = [*parse_script(script), *command_line.given]
    for given in everything:
        if given.option.how is How.REFUSED:
            raise UsageError(f"{given.where}: --{given.option.long} is refused: {given.option.note}")
    warnings = [
        f"{given.where}: --{given.option.long} is ignored: {given.option.note}"
        for given in everything
        if given.option.how is How.IGNORED
    ]
    asked = Asked(everything, warnings, environ)
    job = asked.job(PurePosixPath(name).name)
    job["command"] = command_for(script, name, command_line.arguments)
    return Submission(
        job,
        tuple(asked.warnings),
        parsable=asked.has("parsable"),
        quiet=asked.has("quiet"),
        wait=asked.has("wait"),
        test_only=asked.has("test-only"),
    )


_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
_BY_FILE = 'file=$(mktemp) && printf %s "$1" >"$file" && chmod 700 "$file" && shift && exec "$file" "$@"'


def command_for(script: str, name: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a script's text in any image that has ``/bin/sh`` and the script's own interpreter.

    A shell takes the text as its argument; for another interpreter the text becomes a file first.
    """
    if "\0" in script:
        raise InvalidInput(f"{name} holds a NUL character", "a batch script is a text")
    if "\r" in script:
        raise InvalidInput(f"{name} has DOS line ends", f"sed -i 's/\\r$//' {name}")
    if not script.startswith("#!"):
        raise UsageError(f"{name} does not begin with #!", "begin the script with #!/bin/sh or #!/bin/bash")
    if len(script.encode("utf-8", "surrogateescape")) > MAX_SCRIPT_BYTES:
        fix = "put it into the image, or bring it with --input and call it from a small script"
        raise InvalidInput(f"{name} is larger than {MAX_SCRIPT_BYTES // 1024} KiB", fix)
    interpreter = script.splitlines()[0][2:].split()
    if interpreter and PurePosixPath(interpreter[0]).name == "env":
        interpreter = interpreter[1:]
    if interpreter and PurePosixPath(interpreter[0]).name in _SHELLS:
        return [*interpreter, "-c", script, name, *arguments]
    return ["/bin/sh", "-c", _BY_FILE, name, script, *arguments]
