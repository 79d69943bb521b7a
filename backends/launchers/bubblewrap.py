"""A container as an unpacked image under bubblewrap, where no container runtime is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.launchers.words import RUN, Claim, mounts_of, options, prefix_of, quoted
from backends.pods import launch as pod_launch
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedImage:
    """An image as a directory tree, with what its config says. ``top`` maps each name in its root to a link or None."""

    root: str
    top: Mapping[str, str | None]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


_OWN_DIRECTORIES = frozenset({"proc", "dev", "tmp", "TapisExec", "TapisInput", "TapisOutput"})
_POD_DIRECTORIES = frozenset({"run"})
"""Servers write their sockets and process ids there: PostgreSQL does so before its first start."""


def lines(run: RunSpec, claim: Claim, image: UnpackedImage | None) -> str:
    """Lines that run the tree. SpecInvalid where nobody says a command."""
    if image is None:
        raise ValueError("bubblewrap needs an unpacked image")
    command = run.args if not run.use_entrypoint else (*image.entrypoint, *(run.args or image.command))
    if not command:
        raise SpecInvalid.of("image", "says no command to run", "give the command as the first app argument")
    own = _OWN_DIRECTORIES | (_POD_DIRECTORIES if run.ports else frozenset())
    tree: list[str] = []
    for name, link in sorted(image.top.items()):
        if name not in own:
            tree += (
                ["--symlink", link, f"/{name}"]
                if link is not None
                else ["--ro-bind", f"{image.root}/{name}", f"/{name}"]
            )
    words = [
        *prefix_of(run, claim),
        # A clean environment: what is exported after this is all that the container sees.
        'env -i /bin/sh -c \'. "$0"; shift; exec "$@"\' "$env_file" \'\' "$2"',
        "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --die-with-parent --new-session",
        "--tmpfs /",
        *quoted(tree),
        "--proc /proc --dev /dev --tmpfs /tmp" + (" --tmpfs /run" if run.ports else ""),
        *(["--ro-bind-try /etc/resolv.conf /etc/resolv.conf"] if image.top.get("etc", None) is None else []),
        *quoted(
            word
            for mount in mounts_of(run)
            for word in ("--ro-bind" if mount.read_only else "--bind", mount.source, mount.target)
        ),
        *quoted(("--chdir", run.container_dir)),
        *quoted(options(run.container_args)),
        "--",
        *quoted(command),
    ]
    find = 'runtime=$(command -v bwrap) || refuse "bubblewrap (bwrap) was not found in PATH=$PATH"\n'
    return (
        find
        + pod_launch.checks(run)
        + RUN.replace('    . "$env_file"\n', "").format(positional='"" "$runtime"', command=" ".join(words))
    )
