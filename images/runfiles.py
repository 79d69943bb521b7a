"""The files by which Apptainer knows how to run an image that came from a registry: environment, entry point, command.

A squashfs made of the layers alone would start with an empty environment and nothing to run. The layout and the order
of the scripts are Apptainer's own (``/.singularity.d``), so an image converted here behaves as after
``apptainer build docker://...``. Two things are better than there: a value with quotes, dollars or back-quotes reaches
the program as it stands in the image, and an image that names no program says so.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from shlex import join, quote
from typing import Any

from scheduler.model.errors import SpecInvalid

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What an image's config says of running it. ``env``: ``NAME=value`` each, or a bare ``NAME``."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunConfig:
        """From the ``config`` object of an image's config; SpecInvalid names a field that cannot be meant."""
        lists = {name: _words(config, name) for name in ("Env", "Entrypoint", "Cmd")}
        labels = config.get("Labels") or {}
        if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
            raise SpecInvalid.of("config.Labels", "is not an object of texts", "rebuild the image")
        return cls(lists["Env"], lists["Entrypoint"], lists["Cmd"], labels)


def _words(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    words = config.get(name) or []
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise SpecInvalid.of(f"config.{name}", "is not a list of texts without NUL", "rebuild the image")
    return tuple(words)


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One entry to be in the tree, by its path from the root. A folder has neither text nor target.

    ``keep``: what the image has there itself stays.
    """

    path: str
    text: str | None = None
    target: str | None = None
    mode: int = 0o755
    keep: bool = False


def run_files(config: RunConfig) -> tuple[TreeFile, ...]:
    """All entries that an image needs to be run, folders before what is in them."""
    return (
        *(TreeFile(path, keep=True) for path in ("dev", "etc", "home", "proc", "root", "sys", "var")),
        *(TreeFile(path, mode=0o1777, keep=True) for path in ("tmp", "var/tmp")),
        *(TreeFile(path, "", mode=0o644, keep=True) for path in ("etc/hosts", "etc/resolv.conf")),
        *(TreeFile(f"{_FOLDER}{path}") for path in ("", "/actions", "/env", "/libs")),
        *(TreeFile(f"{_FOLDER}/actions/{name}", _SOURCE_ALL + then) for name, then in _ACTIONS.items()),
        *(TreeFile(f"{_FOLDER}/env/{name}", text) for name, text in _ENVIRONMENT.items()),
        TreeFile(f"{_FOLDER}/env/10-docker2singularity.sh", _image_environment(config.env)),
        TreeFile(f"{_FOLDER}/labels.json", json.dumps(config.labels, indent=1, sort_keys=True), mode=0o644),
        TreeFile(f"{_FOLDER}/runscript", _runscript(config)),
        TreeFile(f"{_FOLDER}/startscript", "#!/bin/sh\n"),
        *(TreeFile(name, target=f"{_FOLDER}/{target}", keep=True) for name, target in _LINKS.items()),
    )


_FOLDER = ".singularity.d"
_LINKS = {
    ".exec": "actions/exec",
    ".run": "actions/run",
    ".shell": "actions/shell",
    ".test": "actions/test",
    "environment": "env/90-environment.sh",
    "singularity": "runscript",
}
_SOURCE_ALL = """#!/bin/sh
for file in /.singularity.d/env/*.sh; do
    if [ -f "$file" ]; then . "$file"; fi
done
"""
_ACTIONS = {
    "exec": 'exec "$@"\n',
    "run": 'exec /.singularity.d/runscript "$@"\n',
    "shell": 'if [ -x /bin/bash ]; then exec /bin/bash --norc "$@"; fi\nexec /bin/sh "$@"\n',
    "start": "kill -CONT 1\nexec /.singularity.d/startscript\n",  # the first process waits for this signal
    "test": 'if [ -x /.singularity.d/test ]; then exec /.singularity.d/test "$@"; fi\n',
}
"""For runtimes that have no actions of their own."""

_ENVIRONMENT = {
    "01-base.sh": "#!/bin/sh\n",
    "90-environment.sh": "#!/bin/sh\n",
    "99-base.sh": """#!/bin/sh
# Where the runtime puts the host's GPU libraries.
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
PS1="${PS1:-Apptainer> }"
export LD_LIBRARY_PATH PS1
""",
    "99-runtimevars.sh": """#!/bin/sh
# What the user asked to change in PATH.
PATH="${SING_USER_DEFINED_PREPEND_PATH:+$SING_USER_DEFINED_PREPEND_PATH:}$PATH"
PATH="$PATH${SING_USER_DEFINED_APPEND_PATH:+:$SING_USER_DEFINED_APPEND_PATH}"
PATH="${SING_USER_DEFINED_PATH:-$PATH}"
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
""",
}


def _image_environment(env: tuple[str, ...]) -> str:
    """The image's variables: PATH is always the image's, others give way to what the user has set.

    A name that no shell can set is left out.
    """
    lines = ["#!/bin/sh"]
    for variable in env:
        name, _, value = variable.partition("=")
        if not _NAME.match(name):
            continue
        lines.append(f"PATH={quote(value)}" if name == "PATH" else f"{name}=${{{name}:-{quote(value)}}}")
        lines.append(f"export {name}")
    return "\n".join(lines) + "\n"


def _runscript(config: RunConfig) -> str:
    """The entry point with the image's command, or with the words that are given instead of it.

    Apptainer sends given words once more through the shell, unless the user forbids it, and so does this.
    """
    return f"""#!/bin/sh
entrypoint={quote(join(config.entrypoint))}
words={quote(join(config.cmd))}
if [ $# -gt 0 ]; then
    words='"$@"'
    if [ -z "${{SINGULARITY_NO_EVAL:-}}${{APPTAINER_NO_EVAL:-}}" ]; then
        words=
        for word in "$@"; do words="$words \\"$word\\""; done
    fi
fi
SINGULARITY_OCI_RUN="-- $entrypoint $words"
# By the next line Apptainer knows a script that it can interpret by itself, in an image without a shell.
eval "set ${{SINGULARITY_OCI_RUN}}"
if [ $# -eq 0 ]; then
    echo "this image names no program: say what to run" >&2
    exit 127
fi
exec "$@"
"""


# -- into the tree ---------------------------------------------------------------------------------------------------


def write_run_files(tree: str, config: RunConfig) -> None:
    """Put the run files into an unpacked image. Links in the tree are the image's: they are never followed."""
    root = os.open(tree, _A_FOLDER)
    try:
        for entry in run_files(config):
            with _parent(root, entry.path) as (folder, name):
                if folder is not None:
                    _put(folder, name, entry)
    finally:
        os.close(root)


_A_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def _parent(root: int, path: str) -> Iterator[tuple[int | None, str]]:
    """The open folder that holds a path, and the name in it; no folder where the image has something else there."""
    *folders, name = path.split("/")
    opened = [root]
    try:
        try:
            for folder in folders:
                opened.append(os.open(folder, _A_FOLDER, dir_fd=opened[-1]))
        except OSError:  # a link, or no folder
            yield None, name
        else:
            yield opened[-1], name
    finally:
        for fd in opened[1:]:
            os.close(fd)


def _put(folder: int, name: str, entry: TreeFile) -> None:
    found = _kind(folder, name)
    is_folder = entry.text is None and entry.target is None
    if found is not None and (entry.keep or (is_folder and stat.S_ISDIR(found))):
        return
    if found is not None:
        if stat.S_ISDIR(found):
            raise SpecInvalid.of(f"/{entry.path}", "is a folder in the image", "rebuild the image without it")
        os.unlink(name, dir_fd=folder)
    if entry.target is not None:
        os.symlink(entry.target, name, dir_fd=folder)
        return
    if entry.text is None:
        os.mkdir(name, dir_fd=folder)
        fd = os.open(name, _A_FOLDER, dir_fd=folder)
    else:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=folder)
        with os.fdopen(os.dup(fd), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(entry.text)
    os.fchmod(fd, entry.mode)  # whatever the umask says
    os.close(fd)


def _kind(folder: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
