"""From a RunSpec to the two files that run it: ``tapisjob.env`` and ``tapisjob.sh``. Pure: text in, text out.

The script is POSIX sh. It claims the marker before any user code, runs the container, and records the exit code, so
that every backend starts a job by starting this one file. Nothing in it is evaluated twice: each word is either a
literal in single quotes or a shell variable in double quotes.

The environment travels in a file, never on a command line. Each of its lines exports ``$1`` + a literal, and ``$1`` is
the prefix that the runtime wants (``APPTAINERENV_`` or nothing); so one file serves every runtime.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from backends import image_actions
from backends.pods import launch as pod_launch
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Mount, RunSpec, Runtime

DUPLICATE_EXIT_CODE = 119
"""Exit code of a stray duplicate: it ran nothing of the user's and wrote no ``exit`` file."""

GATE_CLOSED_EXIT_CODE = 118
"""Exit code of a copy that nobody let go: it ran nothing of the user's, never will, and wrote a ``closed`` file."""

GO_NAME = "go"
"""What opens the gate of a copy, in its marker directory."""

NOT_STARTED_EXIT_CODE = 127
"""Exit code, also recorded, when the container could not be started; the reason is on standard error."""

IMAGE_NAME = "image.sh"
"""What tells a run where its image lies, in its marker directory: it sets ``image``, or leaves it empty and ``why``."""

SCRIPT_NAME = "tapisjob.sh"
ENV_NAME = "tapisjob.env"
EXIT_CODE_NAME = "tapisjob.exitcode"


class Launcher(StrEnum):
    """What starts the container. PODMAN also means Docker where there is no Podman: their commands agree."""

    APPTAINER = "apptainer"
    PODMAN = "podman"
    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


class Claim(StrEnum):
    """Who owns a marker: a Slurm job (its id survives a requeue) or a process of a FORK host."""

    SLURM = "slurm"
    FORK = "fork"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedImage:
    """An image as a directory tree, with what its config says. ``top`` maps each name in its root to a link or None."""

    root: str
    top: Mapping[str, str | None]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


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
    unpacked: UnpackedImage | None = None,
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
        Launcher.APPTAINER: lambda: _apptainer(run, claim),
        Launcher.PODMAN: lambda: _podman(run, claim),
        Launcher.BUBBLEWRAP: lambda: _bubblewrap(run, claim, unpacked),
        Launcher.NONE: lambda: _direct(run, claim),
    }[launcher]()
    if run.ports:
        contained = launcher is not Launcher.NONE
        other_nodes = claim is Claim.SLURM
        body = pod_launch.setup(run, other_nodes=other_nodes, shared_network=shared_network, contained=contained) + body
    script = _SCRIPT.format(
        uuid=re.sub(r"[^\w-]", "_", run.job_uuid),
        marker_dir=_quote(marker_dir),
        exec_dir=_quote(run.exec_dir),
        input_dir=_quote(run.input_dir),
        output_dir=_quote(run.output_dir),
        owner=_OWNERS[claim],
        duplicate=DUPLICATE_EXIT_CODE,
        not_started=NOT_STARTED_EXIT_CODE,
        exit_code_name=EXIT_CODE_NAME,
        env_name=ENV_NAME,
        gate=_GATE.format(seconds=run.gate_s, go=GO_NAME, closed=GATE_CLOSED_EXIT_CODE) if run.gate_s else "",
        body=body,
    )
    return LaunchFiles(script=script, env=job_env(env))


def job_env(env: Mapping[str, str]) -> str:
    """``tapisjob.env``: sourced with the runtime's prefix as ``$1``; any value survives, newlines included."""
    for key, value in env.items():
        if _ENV_KEY.fullmatch(key) is None:
            raise SpecInvalid.of(f"envVariables.{key[:80]}", "is not a variable name", "use letters, digits and _")
        if "\0" in value:
            raise SpecInvalid.of(f"envVariables.{key}", "holds a NUL character", "remove it")
    return "".join(f'export "$1"{_quote(f"{key}={value}")}\n' for key, value in env.items())


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

_RUN = """\
(
    set -- {positional}
    . "$env_file"
    exec {command}
) </dev/null
"""
"""A subshell, so that the user's variables (PATH, IFS, ...) reach what is started and not the lines after it."""


def _apptainer(run: RunSpec, claim: Claim) -> str:
    lines = [_FIND_APPTAINER]
    if run.plain_http_registry:
        lines.append("export APPTAINER_NOHTTPS=1 SINGULARITY_NOHTTPS=1\n")
    fetched, is_file = _fetched(run)
    if run.image_wait_s:
        lines.append(_AWAIT_IMAGE.format(name=IMAGE_NAME, seconds=run.image_wait_s))
        lines += ['if [ -z "$image" ]; then\n', _REFUSE_PRIVATE if run.image_is_private else _SAY_FETCH]
        lines += [] if run.image_is_private else [f"image={_quote(_image(run))}\n", fetched]
        lines.append("fi\n")
        is_file = True
    else:
        lines.append(fetched)
    lines.append(image_actions.setup(run.image_actions))
    mounts = (*_mounts(run), *image_actions.mounts(run.image_actions))
    words = [
        *_prefix(run, claim),
        '"$2"',
        "-q",
        "run" if run.use_entrypoint else "exec",
        "--pwd",
        _quote(run.container_dir),
        *_quoted(word for mount in mounts for word in _apptainer_mount(mount)),
        *image_actions.words(run.image_actions),
        *(pod_launch.APPTAINER_WORDS if run.ports else ()),
        *_quoted(_options(run.container_args)),
        '"$3"' if is_file else _quote(_image(run)),
        *_quoted(run.args),
    ]
    positional = '"$prefix" "$runtime"' + (' "$image"' if is_file else "")
    return (
        "".join(lines)
        + pod_launch.checks(run)
        + _RUN.format(positional=positional, command=" ".join(words))
        + (_DROP_IMAGE if run.ports else "")
    )


def _fetched(run: RunSpec) -> tuple[str, bool]:
    """Lines by which the runtime itself fetches the image; whether they leave it as a file, named by ``$image``."""
    image = _image(run)
    as_file = run.resources.nodes > 1 or run.is_mpi or run.ports  # a pod's own network reaches no registry
    if as_file and _TRANSPORT.match(image) is not None:
        verb = "build" if re.match(r"(oci|oci-archive|docker-archive|docker-daemon):", image) else "pull"
        return _TAKE_TURNS + _PULL_ONCE.format(verb=verb, image=_quote(image)), True
    if "://" not in image:
        return "", False
    name = hashlib.sha256(image.encode()).hexdigest()
    return _TAKE_TURNS + _FETCH_FIRST.format(name=name, image=_quote(image)), False


_FIND_APPTAINER = """\
if runtime=$(command -v apptainer); then
    prefix=APPTAINERENV_
elif runtime=$(command -v singularity); then
    prefix=SINGULARITYENV_
else
    refuse "neither apptainer nor singularity was found in PATH=$PATH"
fi
export APPTAINER_NO_EVAL=1 SINGULARITY_NO_EVAL=1  # values are data: the container's shell must not expand them
"""

_AWAIT_IMAGE = """\
# Berth brings the image while the job waits in the queue, and says here where it lies.
trap 'finish 143' HUP INT TERM
waited=0
until [ -e "$marker_dir/{name}" ] || [ "$waited" -ge {seconds} ]; do
    [ "$waited" -gt 0 ] || echo "tapisjob: waits for its image, for at most {seconds} s" >&2
    sleep 1
    waited=$((waited + 1))
    ls "$marker_dir" > /dev/null # a network file system looks for new names when a directory is opened
done
image=
why="it was not brought here within $waited s"
[ ! -e "$marker_dir/{name}" ] || . "$marker_dir/{name}"
trap : HUP INT TERM
"""

_SAY_FETCH = """\
echo "tapisjob: $why; the container runtime fetches the image itself" >&2
"""

_REFUSE_PRIVATE = """\
refuse "$why; the image is private, so that nothing but Berth can fetch it"
"""

_TAKE_TURNS = """\
# Fetches that fill an empty cache at the same time break it: those that share one take turns.
turns=${APPTAINER_CACHEDIR:-${SINGULARITY_CACHEDIR:-${HOME:-/tmp}/.apptainer/cache}}/berth
in_turn() {
    mkdir -p "$turns" 2>/dev/null || { "$@"; return; }
    ( flock 9 2>/dev/null; "$@" ) 9> "$turns/lock"
}
"""

_PULL_ONCE = """\
image=$marker_dir/image.sif
pull() {{
    [ -e "$image" ] && return
    "$runtime" -q {verb} --force "$marker_dir/image.$owner.sif" {image} && mv "$marker_dir/image.$owner.sif" "$image"
}}
[ -e "$image" ] || in_turn pull || refuse "the image could not be fetched"
"""

_DROP_IMAGE = """\
code=$?
rm -f "$marker_dir/image.sif"
( exit "$code" )
"""
"""Pods start often: the copy of an image that one fetched for itself goes with it."""

_FETCH_FIRST = """\
fetched=$turns/{name}
fetch() {{
    [ -e "$fetched" ] && return
    "$runtime" -q pull --force "$marker_dir/image.$owner.sif" {image} || return
    rm -f "$marker_dir/image.$owner.sif"
    : > "$fetched"
}}
[ -n "${{APPTAINER_DISABLE_CACHE:-}}" ] || [ -e "$fetched" ] || in_turn fetch || refuse "the image could not be fetched"
"""
"""The first job to use an image brings it into the cache; a copy is made and dropped, since nothing else fills it."""


def _podman(run: RunSpec, claim: Claim) -> str:
    words = [
        *_prefix(run, claim),
        '"$2" run --rm "$3" --name "$4" --workdir',
        _quote(run.container_dir),
        *(["${5:+--tls-verify=false}"] if run.plain_http_registry else []),
        *_quoted(f"--env={key}" for key in run.env),
        *_quoted(word for mount in _mounts(run) for word in ("--mount", _csv(mount, "src", "dst"))),
        *([] if run.use_entrypoint else ["--entrypoint="]),
        *_quoted(_options(run.container_args)),
        '"$6"',
        *_quoted(run.args),
    ]
    positional = '"" "$runtime" "$user" "$name" "$podman" "$image"'
    return f"image={_quote(_image(run))}\n" + _FIND_PODMAN + _RUN.format(positional=positional, command=" ".join(words))


_FIND_PODMAN = """\
if runtime=$(command -v podman); then
    podman=yes user=--userns=keep-id
elif runtime=$(command -v docker); then
    podman= user=--user=$(id -u):$(id -g) image=${image#docker://}
else
    refuse "neither podman nor docker was found in PATH=$PATH"
fi
name=$(basename "$marker_dir")
record "$runtime" "$marker_dir/engine"  # the container is no child of ours: ending it takes the engine and its name
"""


def _bubblewrap(run: RunSpec, claim: Claim, image: UnpackedImage | None) -> str:
    if image is None:
        raise ValueError("bubblewrap needs an unpacked image")
    command = run.args if not run.use_entrypoint else (*image.entrypoint, *(run.args or image.command))
    if not command:
        raise SpecInvalid.of("image", "says no command to run", "give the command as the first app argument")
    tree: list[str] = []
    for name, link in sorted(image.top.items()):
        if name not in _OWN_DIRECTORIES:
            tree += (
                ["--symlink", link, f"/{name}"]
                if link is not None
                else ["--ro-bind", f"{image.root}/{name}", f"/{name}"]
            )
    words = [
        *_prefix(run, claim),
        # A clean environment: what is exported after this is all that the container sees.
        'env -i /bin/sh -c \'. "$0"; shift; exec "$@"\' "$env_file" \'\' "$2"',
        "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --die-with-parent --new-session",
        "--tmpfs /",
        *_quoted(tree),
        "--proc /proc --dev /dev --tmpfs /tmp",
        *(["--ro-bind-try /etc/resolv.conf /etc/resolv.conf"] if image.top.get("etc", None) is None else []),
        *_quoted(
            word
            for mount in _mounts(run)
            for word in ("--ro-bind" if mount.read_only else "--bind", mount.source, mount.target)
        ),
        *_quoted(("--chdir", run.container_dir)),
        *_quoted(_options(run.container_args)),
        "--",
        *_quoted(command),
    ]
    find = 'runtime=$(command -v bwrap) || refuse "bubblewrap (bwrap) was not found in PATH=$PATH"\n'
    return (
        find
        + pod_launch.checks(run)
        + _RUN.replace('    . "$env_file"\n', "").format(positional='"" "$runtime"', command=" ".join(words))
    )


def _direct(run: RunSpec, claim: Claim) -> str:
    return _RUN.format(positional="''", command=" ".join([*_prefix(run, claim), *_quoted(run.args)]))


# -- pieces ----------------------------------------------------------------------------------------------------------

_LAUNCHERS: Mapping[Runtime, Launcher] = {
    Runtime.SINGULARITY: Launcher.APPTAINER,
    Runtime.DOCKER: Launcher.PODMAN,
    Runtime.NONE: Launcher.NONE,
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWN_DIRECTORIES = frozenset({"proc", "dev", "tmp", "TapisExec", "TapisInput", "TapisOutput"})
_TRANSPORT = re.compile(r"[a-z][a-z0-9+.-]*://|(oci|oci-archive|docker-archive|docker-daemon|dir):")
_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_OWN = frozenset(
    {"_", "IFS", "UID", "EUID", "PPID", "GROUPS", "OPTIND", "LINENO", "SHLVL", "RANDOM", "SRANDOM", "SECONDS"}
    | {"BASHOPTS", "BASHPID", "BASH_VERSINFO", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "FUNCNAME", "HISTCMD"}
    | {"SHELLOPTS"}
)
"""Names that a shell keeps for itself; they reach a container only where the runtime takes a prefix."""

_quote: Callable[[str], str] = shlex.quote


def _quoted(words: Iterable[str]) -> list[str]:
    return [_quote(word) for word in words]


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


def _image(run: RunSpec) -> str:
    """The reference with its transport: Docker's bare ``busybox`` is ``docker://busybox`` to everyone else."""
    bare = _TRANSPORT.match(run.image) is None and not run.image.startswith(("/", "."))
    return f"docker://{run.image}" if bare and run.runtime is Runtime.DOCKER else run.image


def _mounts(run: RunSpec) -> tuple[Mount, ...]:
    if run.ports:
        return (*pod_launch.own_mounts(run), *run.mounts)
    return (
        Mount(source=run.exec_dir, target="/TapisExec"),
        Mount(source=run.input_dir, target="/TapisInput"),
        Mount(source=run.output_dir, target="/TapisOutput"),
        *run.mounts,
    )


def _apptainer_mount(mount: Mount) -> tuple[str, str]:
    """``--bind``, which every version knows, unless a path holds one of its separators; then ``--mount``."""
    if any(mark in mount.source + mount.target for mark in ':,"\\\n'):
        return "--mount", _csv(mount, "src", "dst")
    return "--bind", f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")


def _csv(mount: Mount, source: str, target: str) -> str:
    """A mount as one CSV record (RFC 4180), as Apptainer, Podman and Docker read it."""
    fields = ["type=bind", f"{source}={mount.source}", f"{target}={mount.target}", *(["ro"] if mount.read_only else [])]
    return ",".join('"' + text.replace('"', '""') + '"' if re.search(r'[,"\n]', text) else text for text in fields)


def _options(args: Sequence[str]) -> Iterable[str]:
    """Container arguments as words: ``--bind /a:/b`` is an option and its value, as Tapis reads it."""
    for arg in args:
        option = re.fullmatch(r"(--?[\w-]+)\s+(\S.*)", arg, re.DOTALL)
        yield from option.groups() if option else (arg,)


def _prefix(run: RunSpec, claim: Claim) -> list[str]:
    """What stands before the runtime: a pod's door, the site's prefix or MPI command, or ``srun`` on every node."""
    door = [pod_launch.WORDS] if run.ports else []
    said = ("mpiCmd", run.mpi_cmd) if run.is_mpi and run.mpi_cmd else ("cmdPrefix", run.cmd_prefix)
    if said[1]:
        try:
            return door + _quoted(shlex.split(said[1]))
        except ValueError as error:
            raise SpecInvalid.of(said[0], f"cannot be read as words: {error}", "close every quote") from None
    if not run.is_mpi and run.resources.nodes == 1:
        return door
    if claim is not Claim.SLURM:
        raise SpecInvalid.of("mpiCmd", "is needed for an MPI job outside a batch system", "for example 'mpirun -n 4'")
    nodes, cores = run.resources.nodes, run.resources.cores_per_node
    per_node, each = (cores, 1) if run.is_mpi else (1, cores)
    launch = image_actions.launch(run.image_actions, nodes, per_node) if run.is_mpi else None
    if launch is not None:
        return _quoted(launch)
    return [
        f"srun --nodes={nodes} --ntasks={nodes * per_node} --ntasks-per-node={per_node} --cpus-per-task={each}",
        "--kill-on-bad-exit=1",
    ]
