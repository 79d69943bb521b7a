"""Slurm batch scripts: ``#SBATCH`` lines and sbatch's options, turned into a job file's fields. Pure.

The whole script travels in the job and runs inside a container image, which the script names in a line
``#BERTH image=docker://...`` or the caller by ``--image``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from berth.errors import InvalidInput, UsageError
from berth.units import minutes_of, parse_memory_mib

MAX_SCRIPT_BYTES = 48 * 1024
"""A job's notes, in which the script travels, hold 64 KiB."""


class How(Enum):
    """What becomes of an option."""

    MAPPED = "mapped"
    PASSED = "passed on to the system's scheduler"
    IGNORED = "ignored, with a warning"
    REFUSED = "refused"
    HERE = "about this command"
    BERTH = "Berth's own"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of sbatch. ``value``: its name in help texts; None for a flag, in brackets when it may be left out.

    ``note``: what it becomes, or why it is not taken.
    """

    long: str
    short: str | None
    value: str | None
    how: How
    note: str

    @property
    def needs_value(self) -> bool:
        return self.value is not None and not (self.value.startswith("[") and self.value.endswith("]"))

    @property
    def spelled(self) -> str:
        """As sbatch's own help writes it."""
        short = f"-{self.short}, " if self.short else ""
        if self.value is None:
            return f"{short}--{self.long}"
        return f"{short}--{self.long}" + (f"={self.value}" if self.needs_value else f"[={self.value[1:-1]}]")


M, P, I, R, H, B = How.MAPPED, How.PASSED, How.IGNORED, How.REFUSED, How.HERE, How.BERTH  # noqa: E741

OPTIONS: tuple[Option, ...] = (
    Option("image", None, "IMAGE", B, "the container image that the script runs in"),
    Option("system", None, "SYSTEM", B, "the system; left out, Berth chooses"),
    Option("env", None, "KEY=VALUE", B, "a variable of the job; may come several times"),
    Option("input", None, "URL[:NAME]", B, "a file for the job's input directory; may come several times"),
    Option("job-name", "J", "NAME", M, "name"),
    Option("nodes", "N", "COUNT", M, "resources.nodes"),
    Option("ntasks", "n", "COUNT", M, "resources.cores, with --cpus-per-task, spread over the nodes"),
    Option("ntasks-per-node", None, "COUNT", M, "resources.cores, with --cpus-per-task"),
    Option("cpus-per-task", "c", "COUNT", M, "resources.cores, times the tasks of a node"),
    Option("mem", None, "SIZE", M, "resources.memory"),
    Option("mem-per-cpu", None, "SIZE", M, "resources.memory, times the cores of a node"),
    Option("time", "t", "TIME", M, "resources.time"),
    Option("partition", "p", "QUEUE", M, "queue: the system's logical queue"),
    Option("clusters", "M", "SYSTEM", M, "system"),
    Option("array", "a", "INDICES", M, "array"),
    Option("dependency", "d", "TYPE:JOB", M, "after: afterok, afternotok and afterany of Berth jobs"),
    Option("gpus", "G", "[TYPE:]COUNT", M, "resources.gpus, divided by the nodes"),
    Option("gpus-per-node", None, "[TYPE:]COUNT", M, "resources.gpus"),
    Option("gpus-per-task", None, "[TYPE:]COUNT", M, "resources.gpus, times the tasks of a node"),
    Option("gres", None, "LIST", M, "resources.gpus for gpu; anything else goes to the scheduler"),
    Option("output", "o", "FILE", M, "outputs.stdout: a name in the job's output directory"),
    Option("error", "e", "FILE", M, "outputs.stderr: a name in the job's output directory"),
    Option("export", None, "LIST", M, "env; ALL means nothing here, as your shell's environment stays at home"),
    Option("comment", None, "TEXT", M, "description"),
    Option("account", "A", "ACCOUNT", P, "options.account"),
    Option("qos", "q", "QOS", P, "options.qos"),
    Option("constraint", "C", "LIST", P, "options.constraint"),
    Option("reservation", None, "NAME", P, "options.reservation"),
    Option("licenses", "L", "LIST", P, "options.licenses"),
    Option("exclusive", None, "[MODE]", P, "options.exclusive"),
    Option("nodelist", "w", "NODES", P, "options.nodelist"),
    Option("exclude", "x", "NODES", P, "options.exclude"),
    Option("begin", "b", "TIME", P, "options.begin"),
    Option("deadline", None, "TIME", P, "options.deadline"),
    Option("tmp", None, "SIZE", P, "options.tmp"),
    Option("nice", None, "[NUMBER]", P, "options.nice"),
    Option("contiguous", None, None, P, "options.contiguous"),
    Option("overcommit", "O", None, P, "options.overcommit"),
    Option("oversubscribe", "s", None, P, "options.oversubscribe"),
    Option("spread-job", None, None, P, "options.spread-job"),
    Option("use-min-nodes", None, None, P, "options.use-min-nodes"),
    Option("distribution", "m", "HOW", P, "options.distribution"),
    Option("core-spec", "S", "COUNT", P, "options.core-spec"),
    Option("mail-type", None, "TYPE", P, "options.mail-type: the system's scheduler writes the mail"),
    Option("mail-user", None, "USER", P, "options.mail-user"),
    Option("signal", None, "SIGNAL", P, "options.signal"),
    *(
        Option(name, None, value, P, f"options.{name}")
        for value, names in (
            ("COUNT", "switches mincpus ntasks-per-core ntasks-per-socket sockets-per-node cores-per-socket"),
            ("COUNT", "threads-per-core thread-spec ntasks-per-gpu gpus-per-socket priority"),
            ("LIST", "hint prefer gres-flags gpu-bind gpu-freq mem-bind acctg-freq network profile bb wckey time-min"),
        )
        for name in names.split()
    ),
    Option("chdir", "D", "DIR", I, "a job works in a directory of its own"),
    Option("requeue", None, None, I, "Berth itself brings a job back that its site lost"),
    Option("no-requeue", None, None, I, "Berth itself brings a job back that its site lost, never one that ran"),
    Option("open-mode", None, "MODE", I, "every job has log files of its own"),
    Option("get-user-env", None, "[MODE]", I, "a container has its own environment; name variables with --env"),
    Option("no-kill", "k", "[off]", I, "the system decides what a node failure ends"),
    Option("propagate", None, "[LIMITS]", I, "limits of this shell stay here"),
    Option("verbose", "v", None, I, "see berth why for the reasons"),
    Option("hold", "H", None, R, "submit the job when it may run"),
    Option("uid", None, "USER", R, "a job runs as the login of your credential"),
    Option("gid", None, "GROUP", R, "a job runs as the login of your credential"),
    Option("input-file", "i", "FILE", R, "bring the file with --input"),
    Option("parsable", None, None, H, "print the number alone"),
    Option("quiet", "Q", None, H, "print nothing"),
    Option("wait", "W", None, H, "end when the job has ended, with exit code 0 or 1"),
    Option("test-only", None, None, H, "say where the job would go and submit nothing"),
    Option("wrap", None, "COMMAND", H, "run this line instead of a script"),
)
"""What is done with each option of sbatch; docs/cli.md shows the same table."""

_BY_LONG = {option.long: option for option in OPTIONS}
_BY_SHORT = {option.short: option for option in OPTIONS if option.short}
_SEVERAL = frozenset({"env", "input"})


@dataclass(frozen=True, slots=True)
class Given:
    """One option as it was given, and where: ``line 3`` of the script or ``command line``."""

    option: Option
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A script as a job file's content, with what the caller wants to see. ``warnings`` name what is not taken over."""

    job: Mapping[str, Any]
    warnings: Sequence[str] = ()
    parsable: bool = False
    quiet: bool = False
    wait: bool = False
    test_only: bool = False


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


# -- reading options ---------------------------------------------------------------------------------------------


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
            given.append(Given(option, value if equals else _next_value(option, words, where), where))
        else:
            given.extend(_short(word[1:], words, where))
    if words[:1] == ["--"]:
        words.pop(0)
    return given, words


def _short(letters: str, words: list[str], where: str) -> Iterator[Given]:
    """The options of one word such as ``-N2`` or ``-QW``."""
    while letters:
        option = _BY_SHORT.get(letters[0])
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
    if name in _BY_LONG:
        return _BY_LONG[name]
    fits = [option for long, option in _BY_LONG.items() if name and long.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    near = [option.long for option in fits] or get_close_matches(name, _BY_LONG, n=1, cutoff=0.75)
    fix = f"did you mean {' or '.join(f'--{long}' for long in near)}?" if near else "see berth sbatch --help"
    raise UsageError(f"{where}: {'--' + name} is {'not clear' if fits else 'no option that Berth knows'}", fix)


def _next_value(option: Option, words: list[str], where: str) -> str:
    if not option.needs_value:
        return ""
    if not words:
        raise UsageError(f"{where}: --{option.long} needs a value")
    return words.pop(0)


# -- what they come to -------------------------------------------------------------------------------------------


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
    asked = _Asked(everything, warnings, environ)
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


class _Asked:
    """All options together; the last of each counts."""

    def __init__(self, given: Iterable[Given], warnings: list[str], environ: Mapping[str, str]) -> None:
        self.last: dict[str, Given] = {}
        self.several: dict[str, list[Given]] = {name: [] for name in _SEVERAL}
        self.warnings, self.environ = warnings, environ
        for one in given:
            self.last[one.option.long] = one
            if one.option.long in _SEVERAL:
                self.several[one.option.long].append(one)

    def has(self, name: str) -> bool:
        return name in self.last

    def text(self, name: str) -> str | None:
        return self.last[name].value if name in self.last else None

    def read(self, name: str, reader: Callable[[str], Any], default: Any = None) -> Any:
        """An option's value through ``reader``; its ValueError becomes a UsageError that names option and place."""
        if name not in self.last:
            return default
        given = self.last[name]
        try:
            return reader(given.value)
        except ValueError as error:
            raise UsageError(f"{given.where}: --{name}: {error}") from None

    def job(self, script_name: str) -> dict[str, Any]:
        """The job file's content, without the command."""
        if not self.has("image"):
            fix = "add a line #BERTH image=docker://... to the script, or give --image"
            raise UsageError("no image is named: Berth runs scripts inside containers", fix)
        name = self.text("job-name") or re.sub(r"[^A-Za-z0-9._-]", "-", script_name)[:64] or "job"
        fields: dict[str, Any] = {
            "name": name,
            "image": self.text("image"),
            "description": self.text("comment"),
            "system": self.text("system") or self.read("clusters", _one),
            "queue": self.read("partition", _one),
            "resources": self.resources(),
            "array": self.text("array"),
            "after": self.read("dependency", dependencies),
            "env": self.env(),
            "inputs": [self._input(given) for given in self.several["input"]],
            "outputs": self.outputs(name),
            "options": self.options(),
        }
        return {key: value for key, value in fields.items() if value not in (None, {}, [])}

    def resources(self) -> dict[str, Any]:
        """Nodes, cores and GPUs of a node, memory of a node, and time."""
        nodes = self.read("nodes", _nodes)
        per_node = self.read("ntasks-per-node", _positive)
        tasks = self.read("ntasks", _positive)
        cpus = self.read("cpus-per-task", _positive, 1)
        if nodes is None:
            nodes = -(-tasks // per_node) if tasks and per_node else 1
        tasks_here = per_node or -(-(tasks or 1) // nodes)
        cores = tasks_here * cpus
        found: dict[str, Any] = {"nodes": nodes, "cores": cores, "gpus": self.gpus(nodes, tasks_here)}
        memory_mib = self.read("mem", _memory_mib)
        if memory_mib is None and (per_cpu := self.read("mem-per-cpu", _memory_mib)) is not None:
            memory_mib = per_cpu * cores
        found["memory"] = f"{memory_mib}M" if memory_mib else None
        minutes = self.read("time", minutes_of)
        found["time"] = minutes
        return {key: value for key, value in found.items() if value is not None}

    def gpus(self, nodes: int, tasks_here: int) -> str | None:
        """GPUs of one node, from whichever option asks for them."""
        kind, count = "", 0
        for entry in (self.text("gres") or "").split(","):
            if entry == "gpu" or entry.startswith("gpu:"):
                kind, count = self.read(
                    "gres", lambda _, entry=entry: _gpus(entry.removeprefix("gpu").lstrip(":") or "1")
                )
        if self.has("gpus"):
            kind, total = self.read("gpus", _gpus)
            if total % nodes:
                raise UsageError(
                    f"--gpus: {total} GPUs cannot be spread evenly over {nodes} nodes", "use --gpus-per-node"
                )
            count = total // nodes
        if self.has("gpus-per-task"):
            kind, each = self.read("gpus-per-task", _gpus)
            count = each * tasks_here
        if self.has("gpus-per-node"):
            kind, count = self.read("gpus-per-node", _gpus)
        return f"{kind}{count}" if count else None

    def env(self) -> dict[str, str]:
        """Variables from ``--export`` and ``--env``."""
        variables: dict[str, str] = {}
        for entry in filter(None, (self.text("export") or "").split(",")):
            key, equals, value = entry.partition("=")
            if key == "ALL" and not equals:
                self.warnings.append(
                    f"{self.last['export'].where}: --export=ALL: {_BY_LONG['export'].note.partition('; ')[2]}"
                )
            elif key in ("NONE", "NIL") and not equals:
                continue
            elif not equals and key not in self.environ:
                raise UsageError(f"--export: {key} is not set here", f"write {key}=VALUE")
            else:
                variables[key] = value if equals else self.environ[key]
        for given in self.several["env"]:
            key, equals, value = given.value.partition("=")
            if not equals:
                raise UsageError(f"{given.where}: --env: '{given.value}' has no value", "write --env KEY=VALUE")
            variables[key] = value
        return variables

    def _input(self, given: Given) -> dict[str, str]:
        source, target = split_input(given.value)
        return {"source": source, "target": target} if target else {"source": source}

    def outputs(self, job_name: str) -> dict[str, str]:
        """Log file names. As in Slurm, errors go where the output goes unless ``--error`` says otherwise."""
        stdout = self._file("output", job_name)
        stderr = self._file("error", job_name) or stdout
        return {key: value for key, value in (("stdout", stdout), ("stderr", stderr)) if value}

    def _file(self, name: str, job_name: str) -> str | None:
        given = self.last.get(name)
        if given is None:
            return None
        if given.value == "/dev/null":
            self.warnings.append(f"{given.where}: --{name}=/dev/null is ignored: the log is kept in the job's output")
            return None
        path = PurePosixPath(given.value)
        if len(path.parts) > 1:
            self.warnings.append(f"{given.where}: --{name}: the file is '{path.name}' in the job's output directory")
        return self.read(name, lambda _: file_name(path.name, job_name))

    def options(self) -> dict[str, Any]:
        """What goes on to the scheduler as it is."""
        passed: dict[str, Any] = {
            name: given.value or True for name, given in self.last.items() if given.option.how is How.PASSED
        }
        others = [entry for entry in (self.text("gres") or "").split(",") if entry and entry.split(":")[0] != "gpu"]
        return {**passed, "gres": ",".join(others)} if others else passed


# -- values ------------------------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"'{text}' is no whole number of at least 1")
    return int(text)


def _nodes(text: str) -> int:
    if re.fullmatch(r"\d+[kK]?-\d+[kK]?|\d+:.*", text):
        raise ValueError(f"'{text}' is a range; name one number of nodes")
    return _positive(text)


def _memory_mib(text: str) -> int:
    mib = parse_memory_mib(text)
    if mib < 1:
        raise ValueError(f"'{text}' means all memory of a node; name a size")
    return mib


def _gpus(text: str) -> tuple[str, int]:
    kind, colon, count = text.rpartition(":")
    return kind + colon, _positive(count)


def _one(text: str) -> str:
    if "," in text:
        raise ValueError(f"'{text}' names several; name one, or none and Berth chooses")
    return text


_CONDITIONS = {"afterok": "ok", "afternotok": "notok", "afterany": "any"}


def dependencies(text: str) -> list[dict[str, str]]:
    """``afterok:12:13,afterany:14`` as a job file's ``after``. ValueError for what Berth has no word for."""
    found = []
    for part in text.split(","):
        kind, *jobs = part.split(":")
        if kind not in _CONDITIONS or not jobs or "?" in text:
            raise ValueError(f"'{part}' is not understood; afterok, afternotok and afterany of jobs are")
        for job in jobs:
            if not re.fullmatch(r"[0-9A-Za-z-]+", job):
                raise ValueError(f"'{job}' is no job")
            found.append({"job": job, "condition": _CONDITIONS[kind]})
    return found


_NUMBERS = re.compile(r"[-_.]?%\d*[jJAaNnstu]")


def file_name(text: str, job_name: str) -> str:
    """A log file's name with sbatch's ``%`` patterns replaced: ``%x`` is the job's name, and what tells jobs, tasks and
    nodes apart is left out, since every job has an output directory of its own. ValueError for an unknown pattern."""
    plain = _NUMBERS.sub("", text.replace("%x", job_name))
    if "%" in plain.replace("%%", ""):
        raise ValueError(f"'{text}' holds a pattern that means nothing here; %x and %j do")
    return plain.replace("%%", "%") or "output"


def split_input(text: str) -> tuple[str, str | None]:
    """``URL`` or ``URL:NAME`` as URL and name; the colons of the URL itself are none of it."""
    scheme, found, rest = text.partition("://")
    head, colon, name = rest.rpartition(":")
    if not found or not colon or "/" in name or (name.isdecimal() and "/" not in head):
        return text, None
    return f"{scheme}://{head}", name
