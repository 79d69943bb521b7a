"""An explanation for people: the sentence first, then the chosen place, all possible ones, and the impossible."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from berth.cli.render import Format, document, print_document, print_table, rejection_lines, safe
from berth.records import Explanation, Raw
from berth.units import duration

SAID = (
    ("state", "state"),
    ("lastMessage", "message"),
    ("siteReason", "the site says"),
    ("siteReasonInWords", "that is"),
    ("siteReasonDecidedBy", "who decides"),
)
"""What the explanation of a job says beside its places, and how it is introduced."""

TERMS = ("wait", "staging", "run", "archive")
COMPARED = ("wait", "staging", "run")
"""Terms in which places differ."""

WIDEST = 100


def print_explanation(explanation: Explanation, output: Format) -> None:
    """Print why a job goes where it goes, in the form asked for; ``id`` prints the chosen ``system/queue``."""
    if output is Format.ID:
        print(safe(_place(explanation.winner) if explanation.winner else ""))
        return
    if output is not Format.TABLE:
        print_document(document("Explanation", item=explanation.raw), output)
        return
    _print_wrapped(explanation.sentence, indent="")
    _print_state(explanation)
    if explanation.winner:
        _print_chosen(explanation.winner)
    if explanation.losers:
        _print_places([*([explanation.winner] if explanation.winner else []), *explanation.losers])
    if explanation.rejections:
        print("\nimpossible:")
        for line in rejection_lines(explanation.rejections):
            _print_wrapped(line, indent="    ")
    if explanation.advice:
        print()
    for advice in explanation.advice:
        _print_wrapped(f"advice: {advice}")


def _print_state(explanation: Explanation) -> None:
    """Where the job is, what keeps it there and who decides on it; nothing twice."""
    seen = explanation.sentence
    for name, label in SAID:
        said = str(explanation.raw.get(name) or "")
        if said and said not in seen:
            seen += said
            _print_wrapped(f"{label}: {said}")
    for copy in explanation.raw.get("copies") or ():
        what = "moves to" if copy.get("kind") == "MOVE" else "waits too in"
        _print_wrapped(f"{what} {_place(copy)}: copy {copy.get('number')}, {copy.get('state')}")


def _print_chosen(winner: Raw) -> None:
    """Every term of the place that was chosen: half of such jobs are faster than the first figure."""
    terms = [(name, *_range(winner.get(name) or {}, "p50", "p90")) for name in TERMS]
    print()
    print_table((_place(winner), "LIKELY", "9 IN 10"), [*terms, ("result in", *_range(winner, "totalP50", "totalP90"))])
    for note in winner.get("notes") or ():
        _print_wrapped(f"note: {note}")


def _print_places(places: Sequence[Raw]) -> None:
    """All places that could take the job, with the minutes by which they lost."""
    best_s = places[0].get("totalP50")
    print()
    print_table(
        ("PLACE", "RESULT IN", "9 IN 10", "LATER BY", *map(str.upper, COMPARED)),
        [(_place(each), *_figures(each, best_s)) for each in places],
    )


def _figures(place: Raw, best_s: Any) -> tuple[str, ...]:
    likely_s = place.get("totalP50")
    known = isinstance(likely_s, int | float) and isinstance(best_s, int | float)
    later = duration(likely_s - best_s) if known and likely_s > best_s else "-"
    terms = (_seconds((place.get(term) or {}).get("p50")) for term in COMPARED)
    return (*_range(place, "totalP50", "totalP90"), later, *terms)


def _range(figures: Raw, *names: str) -> tuple[str, ...]:
    return tuple(_seconds(figures.get(name)) for name in names)


def _place(place: Mapping[str, Any]) -> str:
    return "/".join(str(place[name]) for name in ("systemId", "queue") if place.get(name))


def _seconds(value: Any) -> str:
    return duration(value) if isinstance(value, int | float) else "-"


def _print_wrapped(text: str, indent: str = "  ") -> None:
    """A paragraph that fits the terminal, or 80 columns."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    print(textwrap.fill(safe(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
