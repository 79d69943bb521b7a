"""From a RunSpec to the two files that run it: ``tapisjob.env`` and ``tapisjob.sh``. Pure: text in, text out.

The script is POSIX sh. It claims the marker before any user code, runs the container, and records the exit code, so
that every backend starts a job by starting this one file. Nothing in it is evaluated twice: each word is either a
literal in single quotes or a shell variable in double quotes.

The environment travels in a file, never on a command line. Each of its lines exports ``$1`` + a literal, and ``$1`` is
the prefix that the runtime wants (``APPTAINERENV_`` or nothing); so one file serves every runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from backends import image_actions
from backends.launchers import apptainer, bubblewrap, modules, podman
from backends.launchers.words import RUN, Claim, prefix_of, quote, quoted
from backends.pods import launch as pod_launch
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import RunSpec, Runtime

DUPLICATE_EXIT_CODE = 119
"""Exit code of a stray duplicate: it ran nothing of the user's and wrote no ``exit`` file."""

GATE_CLOSED_EXIT_CODE = 118
"""Exit code of a copy that nobody let go: it ran nothing of the user's, never will, and wrote a ``closed`` file."""

GO_NAME = "go"
"""What opens the gate of a copy, in its marker directory."""

NOT_STARTED_EXIT_CODE = 127
"""Exit code, also recorded, when the container could not be started; the reason is on standard error."""

SCRIPT_NAME = "tapisjob.sh"
ENV_NAME = "tapisjob.env"
EXIT_CODE_NAME = "tapisjob.exitcode"


class Launcher(StrEnum):
    """What starts the container. PODMAN also means Docker where there is no Podman: their commands agree."""

    APPTAINER = "apptainer"
    PODMAN = "podman"
    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class LaunchFiles:
    """What must lie in the exec directory: ``tapisjob.sh`` and ``tapisjob.env`` (mode 0600)."""

    script: str
    env: str


def launcher_for(runtime: Runtime) -> Launcher:
    """What starts containers of this runtime on a system that has it."""
    return _LAUNCHERS[runtime]


def launch_files(
    run: RunSpec,
    *,
    marker_dir: str,
    claim: Claim,
    launcher: Launcher | None = None,
    unpacked: bubblewrap.UnpackedImage | None = None,
    shared_network: bool = False,
) -> LaunchFiles:
    """The two files of one attempt. SpecInvalid, naming the field, for what no file can say.

    marker_dir: absolute path of the attempt's marker directory; it must exist when the script starts.
    launcher: what starts the container, the runtime's own when None. ``unpacked`` goes with BUBBLEWRAP alone.
    shared_network: whether a run with ports may use the node's own network where the node gives it none.
    """
    launcher = launcher or launcher_for(run.runtime)
    _check(run, launcher)
    env = run.env if unpacked is None else {"PATH": _PATH, "HOME": "/tmp", **unpacked.env, **run.env}  # noqa: S108
    if launcher is Launcher.APPTAINER:
        env = image_actions.environment(run.image_actions, env)
    body = {
        Launcher.APPTAINER: lambda: apptainer.lines(run, claim),
        Launcher.PODMAN: lambda: podman.lines(run, claim),
        Launcher.BUBBLEWRAP: lambda: bubblewrap.lines(run, claim, unpacked),
        Launcher.NONE: lambda: _direct(run, claim),
    }[launcher]()
    if run.ports:
        contained = launcher is not Launcher.NONE
        other_nodes = claim is Claim.SLURM
        body = pod_launch.setup(run, other_nodes=other_nodes, shared_network=shared_network, contained=contained) + body
    script = _SCRIPT.format(
        uuid=re.sub(r"[^\w-]", "_", run.job_uuid),
        marker_dir=quote(marker_dir),
        exec_dir=quote(run.exec_dir),
        input_dir=quote(run.input_dir),
        output_dir=quote(run.output_dir),
        owner=_OWNERS[claim],
        duplicate=DUPLICATE_EXIT_CODE,
        not_started=NOT_STARTED_EXIT_CODE,
        exit_code_name=EXIT_CODE_NAME,
        env_name=ENV_NAME,
        gate=_GATE.format(seconds=run.gate_s, go=GO_NAME, closed=GATE_CLOSED_EXIT_CODE) if run.gate_s else "",
        body=modules.lines(run.scheduler_profile) + body,
    )
    return LaunchFiles(script=script, env=job_env(env))


def job_env(env: Mapping[str, str]) -> str:
    """``tapisjob.env``: sourced with the runtime's prefix as ``$1``; any value survives, newlines included."""
    for key, value in env.items():
        if _ENV_KEY.fullmatch(key) is None:
            raise SpecInvalid.of(f"envVariables.{key[:80]}", "is not a variable name", "use letters, digits and _")
        if "\0" in value:
            raise SpecInvalid.of(f"envVariables.{key}", "holds a NUL character", "remove it")
    return "".join(f'export "$1"{quote(f"{key}={value}")}\n' for key, value in env.items())


# -- the script ----------------------------------------------------------------------------------------------------

_SCRIPT = """\
#!/bin/sh
# Job {uuid}. Written by Berth; runs the user's code at most once, whatever starts it.
set -u
marker_dir={marker_dir}
exec_dir={exec_dir}
input_dir={input_dir}
output_dir={output_dir}
task=${{SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}}
owner={owner}
restart=${{SLURM_RESTART_COUNT:-0}}

# The claim appears whole, with its owner inside, or not at all. A requeued job finds its own claim and goes on; a
# controller that lost its state starts a job again without counting that as a restart, and then nothing may run.
claim=$marker_dir/claim$task
fresh=
if [ ! -d "$claim" ] && mine=$(mktemp -d "$marker_dir/claiming.XXXXXX"); then
    {{ printf '%s\\n' "$owner" > "$mine/owner" && printf '%s\\n' "$restart" > "$mine/restart" &&
        mv -T "$mine" "$claim" && fresh=yes; }} 2>/dev/null || rm -rf "$mine"
fi
holder=$(cat "$claim/owner" 2>/dev/null)
before=$(cat "$claim/restart" 2>/dev/null)
if [ "$holder" != "$owner" ] || [ -e "$marker_dir/void" ]; then
    echo "tapisjob: this run belongs to ${{holder:-nobody}}, not to $owner; nothing was started" >&2
    exit {duplicate}
fi
if [ -z "$fresh" ] && [ "$restart" -le "${{before:-0}}" ]; then
    echo "tapisjob: $owner was started before, and this is no requeue; nothing was started" >&2
    exit {duplicate}
fi
printf '%s\\n' "$restart" > "$claim/restart"
rm -f "$marker_dir/exit$task" # how a run ended that was put back in the queue says nothing of this one

record() {{
    printf '%s\\n' "$1" > "$2.$$" && mv -f "$2.$$" "$2"
}}
finish() {{
    record "$1" "$output_dir/{exit_code_name}$task"
    record "$1" "$marker_dir/exit$task"
    exit "$1"
}}
refuse() {{
    echo "tapisjob: $1" >&2
    finish {not_started}
}}
{gate}# A signal ends the user's code, which is in this process group; this shell stays to record how it ended.
trap : HUP INT TERM USR1 USR2

mkdir -p "$exec_dir" "$input_dir" "$output_dir" && cd "$exec_dir" || refuse "cannot use the directories of the job"
env_file=$exec_dir/{env_name}
[ -r "$env_file" ] || refuse "$env_file cannot be read"
{body}finish "$?"
"""

_GATE = """\
# A copy of a job runs nothing of the user's before Berth has handed the job over to it. In vain is for good: the marker
# is given up before the wait is recorded.
waited=0
until [ -e "$marker_dir/{go}" ]; do
    if [ "$waited" -ge {seconds} ] || [ -e "$marker_dir/void" ]; then
        : > "$marker_dir/void" && record "$waited" "$marker_dir/closed"
        echo "tapisjob: this copy of the job was not let go within $waited s; nothing was started" >&2
        exit {closed}
    fi
    sleep 1
    waited=$((waited + 1))
    ls "$marker_dir" > /dev/null # a network file system looks for new names when a directory is opened
done

"""

_OWNERS: Mapping[Claim, str] = {
    Claim.SLURM: '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
    Claim.FORK: '"$(cat /proc/sys/kernel/random/boot_id).$$"',
}


def _direct(run: RunSpec, claim: Claim) -> str:
    return RUN.format(positional="''", command=" ".join([*prefix_of(run, claim), *quoted(run.args)]))


# -- pieces ----------------------------------------------------------------------------------------------------------

_LAUNCHERS: Mapping[Runtime, Launcher] = {
    Runtime.SINGULARITY: Launcher.APPTAINER,
    Runtime.DOCKER: Launcher.PODMAN,
    Runtime.NONE: Launcher.NONE,
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_OWN = frozenset(
    {"_", "IFS", "UID", "EUID", "PPID", "GROUPS", "OPTIND", "LINENO", "SHLVL", "RANDOM", "SRANDOM", "SECONDS"}
    | {"BASHOPTS", "BASHPID", "BASH_VERSINFO", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "FUNCNAME", "HISTCMD"}
    | {"SHELLOPTS"}
)
"""Names that a shell keeps for itself; they reach a container only where the runtime takes a prefix."""


def _check(run: RunSpec, launcher: Launcher) -> None:
    """Refuse what no command line can carry or what would be read as something else."""
    for name, text in _texts(run):
        if "\0" in text:
            raise SpecInvalid.of(name, "holds a NUL character", "remove it")
    if launcher is not Launcher.NONE and (not run.image or run.image.startswith("-")):
        raise SpecInvalid.of(
            "image", f"'{run.image[:80]}' is not an image reference", "write for example docker://busybox"
        )
    if not run.args and (launcher is Launcher.NONE or not run.use_entrypoint):
        raise SpecInvalid.of("appArgs", "say no command to run", "give the command as the first app argument")
    if run.ports:
        pod_launch.check(run)
        if launcher is Launcher.PODMAN:
            fix = "install Apptainer, or bubblewrap and skopeo, on this system"
            raise SpecInvalid.of("runtime", "a pod cannot run under Podman or Docker here", fix)
    own = _SHELL_OWN.intersection(run.env) if launcher is not Launcher.APPTAINER else None
    if own:
        raise SpecInvalid.of(
            f"envVariables.{min(own)}", "is a name that the shell keeps for itself", "use another name"
        )


def _texts(run: RunSpec) -> Iterable[tuple[str, str]]:
    yield from (("image", run.image), ("mpiCmd", run.mpi_cmd or ""), ("cmdPrefix", run.cmd_prefix or ""))
    yield from (("execSystemExecDir", run.exec_dir), ("execSystemInputDir", run.input_dir))
    yield ("execSystemOutputDir", run.output_dir)
    yield from (("appArgs", arg) for arg in run.args)
    yield from (("containerArgs", arg) for arg in run.container_args)
    yield from (("mounts", path) for mount in run.mounts for path in (mount.source, mount.target))
