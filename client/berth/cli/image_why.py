"""The command that says where an image runs and why: images why."""

from __future__ import annotations

from typing import Annotated

import typer

from berth.cli.connect import connect
from berth.cli.render import Format, Output, document, print_document, print_table, safe
from berth.records import Raw


def why(
    reference: Annotated[str, typer.Argument(metavar="IMAGE", help="As for a job: python:3.12.")],
    system: Annotated[str | None, typer.Option("--system", "-s", help="Only on this system.")] = None,
    nodes: Annotated[int, typer.Option("--nodes", "-N", min=1, help="On how many nodes it is to run.")] = 1,
    mpi: Annotated[bool, typer.Option("--mpi", help="It is to be started as an MPI program.")] = False,
    gpus: Annotated[bool, typer.Option("--gpus", help="It is to use GPUs.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Say where an image runs and where not, and what shows it.

    With -o id, the systems where it runs, or may.

    \b
    Examples:
      berth images why python:3.12
      berth images why --system cluster --nodes 4 --mpi ghcr.io/org/solver:2.0
    """
    with connect() as client:
        judged = client.images.why(reference, system=system, nodes=nodes, mpi=mpi, gpus=gpus or None)
    places: list[Raw] = list(judged.get("nodes") or ())
    if output is Format.ID:
        for name in dict.fromkeys(str(place["systemId"]) for place in places if place.get("fit") != "no"):
            print(safe(name))
    elif output is not Format.TABLE:
        print_document(document("ImageVerdicts", item=judged), output)
    else:
        _print(judged, places)


def _print(judged: Raw, places: list[Raw]) -> None:
    seen = "its files" if judged.get("filesSeen") else "its manifest and config alone"
    print(safe(f"{judged.get('reference')}, known from {seen}"))
    if not places:
        print("there is no system where you may run jobs")
        return
    print()
    print_table(("SYSTEM", "NODES", "RUNS", "WHY"), [_row(place) for place in places])
    for place in places:
        _print_findings(place)


def _row(place: Raw) -> tuple[str, str, str, str]:
    why = place.get("reason") or "; ".join(place.get("warnings") or ()) or "-"
    return str(place.get("systemId")), str(place.get("nodeClass") or "-"), str(place.get("fit")), str(why)


def _print_findings(place: Raw) -> None:
    findings = [finding for finding in place.get("findings") or () if finding.get("reason")]
    if not findings and not place.get("fix"):
        return
    print(safe(f"\n{place.get('systemId')} {place.get('nodeClass') or ''}".rstrip()))
    for finding in findings:
        print(safe(f"  {finding.get('rule')} {finding.get('fit')}: {finding.get('reason')}"))
        for shown in finding.get("evidence") or ():
            print(safe(f"      {shown}"))
        if finding.get("fix"):
            print(safe(f"      fix: {finding['fix']}"))
    if not findings:
        print(safe(f"  fix: {place['fix']}"))
    for action in place.get("actions") or ():
        print(safe(f"  Berth will {action}"))
