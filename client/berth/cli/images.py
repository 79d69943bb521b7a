"""Commands about images: images inspect, and those of neighbouring modules."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from berth.cli import image_copies, image_files, image_logins, image_why
from berth.cli.connect import connect
from berth.cli.render import Format, Output, print_one, print_table
from berth.records import Raw
from berth.units import size

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def main() -> None:
    """What images are and need, where they are, and your logins for registries."""


for command in (
    image_why.why,
    image_copies.ls,
    image_copies.stage,
    image_copies.pin,
    image_copies.unpin,
    image_copies.gc,
    image_files.push,
    image_files.pushed,
    image_files.rm,
    image_logins.login,
    image_logins.logout,
    image_logins.logins,
):
    app.command()(command)


@app.command()
def inspect(
    reference: Annotated[str, typer.Argument(metavar="IMAGE", help="As for a job: python:3.12, docker://host/app:1.")],
    platform: Annotated[
        str | None, typer.Option("--platform", help="Where it is to run, linux/amd64 when left out.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Let the server fetch it and look at its files, where that is allowed.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what an image is and what it needs, without running it.

    \b
    Examples:
      berth images inspect python:3.12
      berth images inspect ghcr.io/org/solver:2.0 --platform linux/arm64
      berth images inspect -o id python:3.12
    """
    with connect() as client:
        found = client.images.inspect(reference, platform=platform, deep=deep)
    print_one("Image", found, _rows(found), str(found.get("digest")), output)
    if output is Format.TABLE and found.get("needs"):
        print()
        print_table(("NEED", "VALUE", "SHOWN BY"), [_need(need) for need in found["needs"]])


def _rows(raw: Raw) -> Iterable[tuple[str, Any]]:
    layers, unpacked = raw.get("layers"), raw.get("unpackedSize")
    yield "image", raw.get("reference")
    yield "digest", raw.get("digest")
    yield "index", raw.get("indexDigest")
    yield "config", raw.get("configDigest")
    yield "platform", raw.get("platform")
    yield "download", f"{size(raw.get('downloadSize') or 0)} in {layers} layer{'' if layers == 1 else 's'}"
    yield "unpacked", None if unpacked is None else size(unpacked)
    yield "entry point", shlex.join(raw.get("entryPoint") or ())
    yield "command", shlex.join(raw.get("command") or ())
    yield "directory", raw.get("workingDir")
    yield "user", raw.get("user")
    yield "known from", "manifest, config and files" if raw.get("filesSeen") else "manifest and config"


def _need(need: Raw) -> tuple[str, str, str]:
    shown = [f"{each.get('source')}: {each.get('detail')}" for each in need.get("evidence") or ()]
    more = f" (and {len(shown) - 1} more)" if len(shown) > 1 else ""
    return str(need.get("need")), _text(need.get("value")), (shown[0] if shown else "-") + more


def _text(value: Any) -> str:
    """A value of any shape on one line."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_text(each)}" for name, each in value.items() if each not in (None, "", []))
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return "not understood" if value is None else "yes" if value is True else str(value)
