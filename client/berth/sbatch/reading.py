"""Finding sbatch's options in a script and on a command line, as sbatch itself does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from berth.errors import UsageError
from berth.sbatch.options import BY_LONG, BY_SHORT, Option


@dataclass(frozen=True, slots=True)
class Given:
    """One option as it was given, and where: ``line 3`` of the script or ``command line``."""

    option: Option
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """sbatch's command line: its options, then the script (None: none was named) and the script's arguments."""

    given: Sequence[Given]
    script: str | None
    arguments: Sequence[str]

    @property
    def wrapped(self) -> str | None:
        """The command of ``--wrap``."""
        return next((given.value for given in self.given if given.option.long == "wrap"), None)


def parse_command_line(argv: Sequence[str]) -> CommandLine:
    """The options before the script, the script, and what follows it. UsageError for an option that sbatch has not."""
    given, rest = _parse(argv, "command line")
    return CommandLine(given, rest[0] if rest else None, rest[1:])


def parse_script(text: str) -> list[Given]:
    """The options in a script's ``#SBATCH`` and ``#BERTH`` lines, up to the first command, as sbatch reads them.

    UsageError names the line of an option that is unknown or cannot be read.
    """
    found: list[Given] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        word, _, rest = line.partition(" ")
        if word not in ("#SBATCH", "#BERTH"):
            continue
        where = f"line {number}"
        try:
            words = shlex.split(rest, comments=True)
        except ValueError as error:
            raise UsageError(f"{where}: {error} in '{line[:100]}'") from None
        if word == "#BERTH":
            words = [text if text.startswith("-") else f"--{text}" for text in words]
        given, left = _parse(words, where)
        if left:
            raise UsageError(f"{where}: '{left[0]}' is no option", "an option begins with - or --")
        found.extend(given)
    return found


def _parse(argv: Sequence[str], where: str) -> tuple[list[Given], list[str]]:
    """Options as getopt_long reads them, and everything from the first word that is none."""
    words, given = list(argv), list[Given]()
    while words and words[0].startswith("-") and words[0] not in ("-", "--"):
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = _named(name, where)
            if equals and option.value is None:
                raise UsageError(f"{where}: --{option.long} takes no value")
            if equals and option.needs_value and not value:
                raise UsageError(f"{where}: --{option.long} needs a value")
            given.append(Given(option, value if equals else _next_value(option, words, where), where))
        else:
            given.extend(_short(word[1:], words, where))
    if words[:1] == ["--"]:
        words.pop(0)
    return given, words


def _short(letters: str, words: list[str], where: str) -> Iterator[Given]:
    """The options of one word such as ``-N2`` or ``-QW``."""
    while letters:
        option = BY_SHORT.get(letters[0])
        if option is None:
            raise UsageError(f"{where}: sbatch has no option -{letters[0]}")
        letters = letters[1:]
        if option.needs_value:
            value, letters = letters.removeprefix("=") or _next_value(option, words, where), ""
            yield Given(option, value, where)
        else:
            yield Given(option, "", where)


def _named(name: str, where: str) -> Option:
    """The option of a long name or of the beginning of exactly one."""
    if name in BY_LONG:
        return BY_LONG[name]
    fits = [option for long, option in BY_LONG.items() if name and long.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    near = [option.long for option in fits] or get_close_matches(name, BY_LONG, n=1, cutoff=0.75)
    fix = f"did you mean {' or '.join(f'--{long}' for long in near)}?" if near else "see berth sbatch --help"
    raise UsageError(f"{where}: {'--' + name} is {'not clear' if fits else 'no option that Berth knows'}", fix)


def _next_value(option: Option, words: list[str], where: str) -> str:
    if not option.needs_value:
        return ""
    if not words:
        raise UsageError(f"{where}: --{option.long} needs a value")
    return words.pop(0)
