"""A container under Podman, or under Docker where there is no Podman."""

from __future__ import annotations

from backends.launchers.words import RUN, Claim, csv, image_of, mounts_of, options, prefix_of, quote, quoted
from scheduler.model.runs import RunSpec


def lines(run: RunSpec, claim: Claim) -> str:
    """Lines that run the image."""
    words = [
        *prefix_of(run, claim),
        '"$2" run --rm "$3" --name "$4" --workdir',
        quote(run.container_dir),
        *(["${5:+--tls-verify=false}"] if run.plain_http_registry else []),
        *quoted(f"--env={key}" for key in run.env),
        *quoted(word for mount in mounts_of(run) for word in ("--mount", csv(mount, "src", "dst"))),
        *([] if run.use_entrypoint else ["--entrypoint="]),
        *quoted(options(run.container_args)),
        '"$6"',
        *quoted(run.args),
    ]
    positional = '"" "$runtime" "$user" "$name" "$podman" "$image"'
    return f"image={quote(image_of(run))}\n" + _FIND_PODMAN + RUN.format(positional=positional, command=" ".join(words))


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
