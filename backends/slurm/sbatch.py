"""From a RunSpec to the words of its sbatch command, and from what sbatch said to whether the job exists."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from scheduler.model.errors import SpecInvalid
from scheduler.model.ids import Marker
from scheduler.model.runs import Resources, RunSpec
from scheduler.model.scheduler_profiles import HiddenOption
from scheduler.model.units import format_walltime

_WORD = re.compile(r"[\w.,:=+*&|()\[\]@%/~^!-]*")
_SWITCH: None = None

OPTIONS: Mapping[str, re.Pattern[str] | None] = MappingProxyType(
    {
        **dict.fromkeys(
            ("--account", "--qos", "--reservation", "--constraint", "--prefer", "--licenses", "--wckey"),
            _WORD,
        ),
        **dict.fromkeys(("--nodelist", "--exclude", "--switches", "--tmp", "--core-spec", "--thread-spec"), _WORD),
        **dict.fromkeys(("--gres", "--gpus", "--gpus-per-node", "--gpus-per-task", "--gres-flags"), _WORD),
        **dict.fromkeys(("--gpu-bind", "--gpu-freq", "--cpu-freq", "--mem-bind", "--distribution", "--hint"), _WORD),
        **dict.fromkeys(("--threads-per-core", "--ntasks-per-core", "--sockets-per-node", "--mincpus"), _WORD),
        **dict.fromkeys(("--dependency", "--begin", "--deadline", "--priority", "--nice", "--signal"), _WORD),
        **dict.fromkeys(("--mail-type", "--mail-user", "--network", "--acctg-freq", "--profile"), _WORD),
        "--comment": re.compile(r"[^\x00-\x1f\x7f]*"),
        "--exclusive": _WORD,
        **dict.fromkeys(("--requeue", "--no-requeue", "--contiguous", "--overcommit", "--spread-job"), _SWITCH),
        **dict.fromkeys(("--oversubscribe", "--use-min-nodes", "--kill-on-invalid-dep"), _SWITCH),
    }
)
"""The options that a user may pass, with what their values may hold (None: takes no value).

What Berth sets itself (name, output, environment, nodes, memory, ...) and what reads or writes files of its own
(``--wrap``, ``--bbf``, ``--get-user-env``, ...) is not here and is refused.
"""

_OPTIONAL_VALUE = frozenset({"--exclusive", "--nice", "--kill-on-invalid-dep"})


def sbatch_argv(run: RunSpec, marker: Marker) -> list[str]:
    """The sbatch command of one attempt; the script's path is added where it is known.

    The environment of the login does not travel: the caller cleans it, and limits are those of the node.
    SpecInvalid for an option that may not be passed.
    """
    log = _log_path(run, run.stdout), _log_path(run, run.stderr)
    argv = ["sbatch", "--parsable", f"--job-name={marker}", "--export=ALL", "--propagate=NONE"]
    hidden = run.scheduler_profile.hidden_options if run.scheduler_profile else ()
    argv += [*_partition(run.partition, hidden), *_size(run.resources, hidden, run.is_mpi), _time(run.resources)]
    argv += [f"--chdir={run.exec_dir}", f"--output={log[0]}", f"--error={log[1]}", "--open-mode=append"]
    argv += [f"--array={_array(run)}"] if run.array else []
    said = {option.name for option in run.scheduler_options}
    argv += [] if said & {"--requeue", "--no-requeue"} else ["--no-requeue"]
    return argv + [_option(option.name, option.value) for option in run.scheduler_options]


def test_only_argv(partition: str, resources: Resources, hidden: Collection[HiddenOption]) -> list[str]:
    """Ask when a job of this shape would start; what the site refuses to be told is left out."""
    shape = [*_partition(partition, hidden), *_size(resources, hidden), _time(resources)]
    return ["sbatch", "--test-only", *shape, "--output=/dev/null", "--wrap=true"]


def log_path(run: RunSpec, name: str, task: int | None = None) -> str:
    """Where a log of a run lies on the system; each task of an array has its own."""
    return posixpath.join(run.output_dir, name) + ("" if task is None else f".{task}")


def _partition(partition: str | None, hidden: Collection[HiddenOption]) -> list[str]:
    return [f"--partition={partition}"] if partition and HiddenOption.PARTITION not in hidden else []


def _size(resources: Resources, hidden: Collection[HiddenOption], is_mpi: bool = False) -> list[str]:
    tasks, cores = (resources.cores_per_node, 1) if is_mpi else (1, resources.cores_per_node)
    argv = [f"--nodes={resources.nodes}", f"--ntasks-per-node={tasks}", f"--cpus-per-task={cores}"]
    argv += [] if HiddenOption.MEM in hidden else [f"--mem={resources.memory_mib}M"]
    if resources.gpus_per_node:
        model = f"{resources.gpu_model}:" if resources.gpu_model else ""
        argv.append(f"--gres={_option('--gres', f'gpu:{model}{resources.gpus_per_node}').partition('=')[2]}")
    return argv


def _time(resources: Resources) -> str:
    """Slurm counts walltime in minutes: rounded up, never down."""
    return f"--time={format_walltime(-(-resources.walltime_s // 60) * 60)}"


def _log_path(run: RunSpec, name: str) -> str:
    """As ``log_path``, for sbatch: it reads ``%``, and ``\\`` switches that off for all of the path."""
    path = log_path(run, name)
    if "\\" in path:
        raise SpecInvalid.of("parameterSet.logConfig", f"'{path[:80]}' holds a backslash", "use another name")
    return path.replace("%", "%%") + (".%a" if run.array else "")


def _array(run: RunSpec) -> str:
    assert run.array is not None
    return f"{run.array.ranges}%{run.array.limit}" if run.array.limit else run.array.ranges


def _option(name: str, value: str | None) -> str:
    """``--name=value``, when the table allows it."""
    field = f"schedulerOptions {name[:40]}"
    if name not in OPTIONS:
        raise SpecInvalid.of(field, "may not be passed", f"allowed are {', '.join(sorted(OPTIONS))}")
    pattern = OPTIONS[name]
    if value is None:
        if pattern is not None and name not in _OPTIONAL_VALUE:
            raise SpecInvalid.of(field, "needs a value", f"write {name} VALUE")
        return name
    if pattern is None:
        raise SpecInvalid.of(field, "takes no value", f"write {name} alone")
    if not value or pattern.fullmatch(value) is None:
        raise SpecInvalid.of(field, f"cannot be '{value[:80]}'", "leave out blanks, quotes and control characters")
    return f"{name}={value}"


_NO_ANSWER = re.compile(
    r"socket timed out|unable to contact slurm controller|zero bytes were transmitted|connect failure"
    r"|connection (refused|reset|timed out)|communication|transport endpoint|message (receive|send) failure"
    r"|unexpected message|temporarily unable|sleeping and retrying|broken pipe|no route to host"
    r"|munge|authentication|protocol",
    re.IGNORECASE,
)
_REFUSAL = re.compile(r"submission failed:|allocation failure:|^sbatch: ", re.IGNORECASE | re.MULTILINE)
_NOT_SBATCH = frozenset({0, 124, 125, 126, 127, 137, 143})
"""Exit statuses of the clock, of signals and of a missing program; sbatch itself says 1 or 255."""


def refusal_of(status: int, said: str) -> str | None:
    """Why sbatch refused, in the system's words; None when it is not certain that it did.

    Not certain: cut off by the clock or a signal, no sbatch there, or trouble on the way to the controller.
    """
    if status in _NOT_SBATCH or _NO_ANSWER.search(said) or not _REFUSAL.search(said):
        return None
    lines = (line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in said.splitlines())
    return "; ".join(dict.fromkeys(filter(None, lines)))
