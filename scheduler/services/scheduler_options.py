"""Which options of the batch scheduler a job may set: one allow-list, and where to say what Berth sets itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from scheduler.model.apps import Arg
from scheduler.model.errors import Problem, SpecInvalid
from scheduler.model.runs import Resources, SchedulerOption

_WORD = r"[\w.,:=/@%+-]{1,255}"
_EXPRESSION = r"[\w.,:=/@%+*&|!()\[\]-]{1,255}"
_NONE = r""
_OPTIONAL = rf"|{_WORD}"

PROFILE = "--tapis-profile"
"""Names a scheduler profile in place of the system's own; the batch scheduler itself never sees it."""

ALLOWED: Mapping[str, str] = {
    "--account": _WORD,
    "--acctg-freq": _WORD,
    "--begin": _WORD,
    "--bb": _WORD,
    "--comment": r"[\w .,:=/@%+-]{1,255}",
    "--constraint": _EXPRESSION,
    "--contiguous": _NONE,
    "--core-spec": r"\d{1,4}",
    "--cores-per-socket": r"\d{1,4}",
    "--deadline": _WORD,
    "--distribution": _EXPRESSION,
    "--exclude": _EXPRESSION,
    "--exclusive": _OPTIONAL,
    "--gpu-bind": _WORD,
    "--gpu-freq": _WORD,
    "--gpus": _WORD,
    "--gpus-per-node": _WORD,
    "--gpus-per-socket": _WORD,
    "--gpus-per-task": _WORD,
    "--gres": _WORD,
    "--gres-flags": _WORD,
    "--hint": _WORD,
    "--licenses": _EXPRESSION,
    "--mail-type": _WORD,
    "--mail-user": _WORD,
    "--mem-bind": _WORD,
    "--mincpus": r"\d{1,5}",
    "--network": _WORD,
    "--nice": r"|-?\d{1,10}",
    "--nodelist": _EXPRESSION,
    "--ntasks-per-core": r"\d{1,5}",
    "--ntasks-per-gpu": r"\d{1,5}",
    "--ntasks-per-node": r"\d{1,5}",
    "--ntasks-per-socket": r"\d{1,5}",
    "--overcommit": _NONE,
    "--oversubscribe": _NONE,
    "--prefer": _EXPRESSION,
    "--priority": r"\d{1,10}",
    "--profile": _WORD,
    "--qos": _WORD,
    "--reservation": _WORD,
    "--signal": _WORD,
    "--sockets-per-node": r"\d{1,4}",
    "--spread-job": _NONE,
    "--switches": _WORD,
    PROFILE: r"[A-Za-z0-9][A-Za-z0-9._~-]{0,79}",
    "--thread-spec": r"\d{1,4}",
    "--threads-per-core": r"\d{1,4}",
    "--time-min": _WORD,
    "--tmp": r"\d{1,12}[KMGT]?",
    "--use-min-nodes": _NONE,
    "--wckey": _WORD,
}
"""Option to the form of its value; a form that matches the empty string needs none."""

SHORT: Mapping[str, str] = {
    "-A": "--account",
    "-b": "--begin",
    "-C": "--constraint",
    "-c": "--cpus-per-task",
    "-d": "--dependency",
    "-D": "--chdir",
    "-e": "--error",
    "-F": "--nodefile",
    "-G": "--gpus",
    "-i": "--input",
    "-J": "--job-name",
    "-L": "--licenses",
    "-M": "--clusters",
    "-m": "--distribution",
    "-N": "--nodes",
    "-n": "--ntasks",
    "-o": "--output",
    "-O": "--overcommit",
    "-p": "--partition",
    "-q": "--qos",
    "-S": "--core-spec",
    "-s": "--oversubscribe",
    "-t": "--time",
    "-a": "--array",
    "-w": "--nodelist",
    "-x": "--exclude",
}

SAY_INSTEAD: Mapping[str, str] = {
    "--array": "notes.berth.array",
    "--chdir": "execSystemExecDir",
    "--cpus-per-task": "coresPerNode (and --ntasks-per-node)",
    "--dependency": "notes.berth.after",
    "--error": "parameterSet.logConfig.stderrFilename",
    "--export": "parameterSet.envVariables",
    "--job-name": "name",
    "--mem": "memoryMB",
    "--mem-per-cpu": "memoryMB (per node)",
    "--mem-per-gpu": "memoryMB (per node)",
    "--nodes": "nodeCount",
    "--ntasks": "nodeCount (and --ntasks-per-node)",
    "--output": "parameterSet.logConfig.stdoutFilename",
    "--partition": "execSystemLogicalQueue",
    "--time": "maxMinutes",
}
"""What Berth sets itself, and the field of the request that says it."""

_ASSIGNED = re.compile(r"(?P<name>--?[A-Za-z][A-Za-z-]*)(?:(?:=|\s+)(?P<value>.*))?", re.DOTALL)
_GPU_COUNT = re.compile(r"(?:gpu:?)?(?:(?P<model>[A-Za-z][\w.-]*):)?(?P<count>\d{1,4})?")


@dataclass(frozen=True, slots=True)
class _Asked:
    where: str
    option: SchedulerOption


def scheduler_options(args: Iterable[Arg]) -> tuple[SchedulerOption, ...]:
    """The options in their long form. Raises SpecInvalid naming every argument that is not allowed, and why."""
    options: list[SchedulerOption] = []
    problems: list[Problem] = []
    for arg in args:
        where = f"parameterSet.schedulerOptions[{arg.name}]"
        try:
            options.append(_option(where, (arg.arg or "").strip()))
        except SpecInvalid as refused:
            problems.extend(refused.problems)
    if problems:
        raise SpecInvalid(*problems)
    return tuple(options)


def with_gpus(resources: Resources, options: Iterable[SchedulerOption]) -> Resources:
    """``resources`` with the GPUs that the options ask for; ``--gpus`` counts the whole job, the others one node."""
    for option in options:
        if option.name == "--gres":
            gpus = [item for item in (option.value or "").split(",") if item == "gpu" or item.startswith("gpu:")]
        elif option.name in ("--gpus-per-node", "--gpus"):
            gpus = [option.value or ""]
        else:
            continue
        for item in gpus:
            match = _GPU_COUNT.fullmatch(item)
            if match is None:
                raise SpecInvalid.of(
                    "parameterSet.schedulerOptions",
                    f"{option.name}={option.value} is not a number of GPUs",
                    f"write for example {option.name}={'gpu:2' if option.name == '--gres' else '2'}",
                )
            count = int(match["count"] or 1)
            per_node = -(-count // resources.nodes) if option.name == "--gpus" else count
            resources = replace(resources, gpus_per_node=per_node, gpu_model=match["model"] or resources.gpu_model)
    return resources


def _option(where: str, text: str) -> SchedulerOption:
    match = _ASSIGNED.fullmatch(text)
    if match is None:
        raise SpecInvalid.of(where, f"'{text[:80]}' is not an option", "write '--name=value', '--name' or '-x value'")
    name = SHORT.get(match["name"], match["name"])
    value = match["value"]
    if name in SAY_INSTEAD:
        raise SpecInvalid.of(where, f"{match['name']} is set by Berth", f"use {SAY_INSTEAD[name]}")
    if name not in ALLOWED:
        raise SpecInvalid.of(where, f"{match['name']} is not allowed", f"allowed: {', '.join(ALLOWED)}")
    if re.fullmatch(ALLOWED[name], value or "") is None:
        wrong = f"{name} does not take the value '{value[:80]}'" if value else f"{name} needs a value"
        raise SpecInvalid.of(where, wrong, f"write one {name} per entry, without blanks or quotes around its value")
    return SchedulerOption(name, value or None)
