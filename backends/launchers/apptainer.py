"""A container under Apptainer or Singularity, whose image may be brought by Berth or fetched by the runtime."""

from __future__ import annotations

import hashlib
import re

from backends import image_actions
from backends.launchers.words import RUN, TRANSPORT, Claim, csv, image_of, mounts_of, options, prefix_of, quote, quoted
from backends.pods import launch as pod_launch
from scheduler.model.runs import Mount, RunSpec

IMAGE_NAME = "image.sh"
"""What tells a run where its image lies, in its marker directory: it sets ``image``, or leaves it empty and ``why``."""


def lines(run: RunSpec, claim: Claim) -> str:
    """Lines that get the image and run it."""
    found = [_FIND_APPTAINER]
    if run.plain_http_registry:
        found.append("export APPTAINER_NOHTTPS=1 SINGULARITY_NOHTTPS=1\n")
    fetched, is_file = _fetched(run)
    if run.image_wait_s:
        found.append(_AWAIT_IMAGE.format(name=IMAGE_NAME, seconds=run.image_wait_s))
        found += ['if [ -z "$image" ]; then\n', _REFUSE_PRIVATE if run.image_is_private else _SAY_FETCH]
        found += [] if run.image_is_private else [f"image={quote(image_of(run))}\n", fetched]
        found.append("fi\n")
        is_file = True
    else:
        found.append(fetched)
    found.append(image_actions.setup(run.image_actions))
    mounts = (*mounts_of(run), *image_actions.mounts(run.image_actions))
    words = [
        *prefix_of(run, claim),
        '"$2"',
        "-q",
        "run" if run.use_entrypoint else "exec",
        "--pwd",
        quote(run.container_dir),
        *quoted(word for mount in mounts for word in _mount(mount)),
        *image_actions.words(run.image_actions),
        *(pod_launch.APPTAINER_WORDS if run.ports else ()),
        *quoted(options(run.container_args)),
        '"$3"' if is_file else quote(image_of(run)),
        *quoted(run.args),
    ]
    positional = '"$prefix" "$runtime"' + (' "$image"' if is_file else "")
    return (
        "".join(found)
        + pod_launch.checks(run)
        + RUN.format(positional=positional, command=" ".join(words))
        + (_DROP_IMAGE if run.ports else "")
    )


def _fetched(run: RunSpec) -> tuple[str, bool]:
    """Lines by which the runtime itself fetches the image; whether they leave it as a file, named by ``$image``."""
    image = image_of(run)
    as_file = run.resources.nodes > 1 or run.is_mpi or run.ports  # a pod's own network reaches no registry
    if as_file and TRANSPORT.match(image) is not None:
        verb = "build" if re.match(r"(oci|oci-archive|docker-archive|docker-daemon):", image) else "pull"
        return _TAKE_TURNS + _PULL_ONCE.format(verb=verb, image=quote(image)), True
    if "://" not in image:
        return "", False
    name = hashlib.sha256(image.encode()).hexdigest()
    return _TAKE_TURNS + _FETCH_FIRST.format(name=name, image=quote(image)), False


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


def _mount(mount: Mount) -> tuple[str, str]:
    """``--bind``, which every version knows, unless a path holds one of its separators; then ``--mount``."""
    if any(mark in mount.source + mount.target for mark in ':,"\\\n'):
        return "--mount", csv(mount, "src", "dst")
    return "--bind", f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")
