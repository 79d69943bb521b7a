"""How long an image takes to a system that keeps images: nothing much where it lies, else as those before it took."""

from __future__ import annotations

from statistics import median

from placement.problem import Ask, SystemView
from placement.words import count
from scheduler.model.plan import Term

PRESENT = Term(1, 5, "the image lies in the store there")

FEWEST_BROUGHT = 3
"""Images that were brought there from which their pace is known."""

LEAST_S = 1.0


def brought(ask: Ask, view: SystemView) -> Term | None:
    """The staging of a job's image there; None where Berth brings none, or has brought too few to know."""
    if ask.image is None or view.stores is None:
        return None
    if (view.system.credential_user(ask.owner), ask.image.manifest_digest) in view.stores.present:
        return PRESENT
    paces = view.stores.paces_bytes_per_s
    if len(paces) < FEWEST_BROUGHT:
        return None
    p50_s = max(LEAST_S, ask.image.download_bytes / median(paces))
    p90_s = max(2 * p50_s, ask.image.download_bytes / min(paces))
    return Term(p50_s, p90_s, f"as {count(len(paces), 'image')} came there before, at {median(paces) / 1e6:.3g} MB/s")
