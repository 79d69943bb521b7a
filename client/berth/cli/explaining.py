"""An explanation for people: the sentence first, then every place with its times, then the impossible ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.cli.render import Format, document, print_document, print_table, rejection_lines, safe
from berth.records import Explanation
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


def print_explanation(explanation: Explanation, output: Format) -> None:
    """Print why a job goes where it goes, in the form asked for; ``id`` prints the chosen ``system/queue``."""
    if output is Format.ID:
        print(safe(_place(explanation.winner) if explanation.winner else ""))
        return
    if output is not Format.TABLE:
        print_document(document("Explanation", item=explanation.raw), output)
        return
    print(safe(explanation.sentence))
    seen = explanation.sentence
    for name, label in SAID:
        said = str(explanation.raw.get(name) or "")
        if said and said not in seen:
            seen += said
            print(f"{label}: {safe(said)}")
    places = [*([explanation.winner] if explanation.winner else []), *explanation.losers]
    if places:
        print()
        print_table(("PLACE", "RESULT IN", "AT WORST", *map(str.upper, TERMS)), [_row(place) for place in places])
    if explanation.rejections:
        print("\nimpossible:")
        print("\n".join(rejection_lines(explanation.rejections)))
    for advice in explanation.advice:
        print(f"\nadvice: {safe(advice)}")


def _row(place: Mapping[str, Any]) -> tuple[str, ...]:
    terms = (_seconds((place.get(term) or {}).get("p50")) for term in TERMS)
    return (_place(place), _seconds(place.get("totalP50")), _seconds(place.get("totalP90")), *terms)


def _place(place: Mapping[str, Any]) -> str:
    return "/".join(str(place[name]) for name in ("systemId", "queue") if place.get(name))


def _seconds(value: Any) -> str:
    return duration(value) if isinstance(value, int | float) else "-"
