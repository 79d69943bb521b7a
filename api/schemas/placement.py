"""Why a job goes where it goes, on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.schemas.base import View
from placement.explain import rejection_sentence
from scheduler.model.images import PinnedImage
from scheduler.model.jobs import Attempt, Job
from scheduler.model.plan import Decision, Estimate, Rejection, Term
from scheduler.model.units import zulu


class WhyView(View):
    """A decision: the winner, what it expects (seconds, median and 90th percentile), and why each other place lost."""

    sentence: str
    winner: dict[str, Any] | None
    losers: list[dict[str, Any]]
    rejections: list[dict[str, Any]]
    provenOptimal: bool
    decidedAt: str | None
    advice: list[str]
    state: str | None = None
    lastMessage: str | None = None
    siteReason: str | None = None
    siteReasonInWords: str | None = None
    siteReasonDecidedBy: str | None = None
    copies: list[dict[str, Any]] | None = None
    """Where else the job waits; the first start takes it from the other places."""
    image: dict[str, Any] | None = None
    """What the image's name meant when the job came; absent where only the runtime on the system reads it."""

    @classmethod
    def of(cls, decision: Decision | None, job: Job | None = None, copies: Sequence[Attempt] = ()) -> WhyView:
        seen = job.observation if job else None
        shown = decision or Decision(winner=None, sentence="The job has not been placed yet.")
        return cls(
            sentence=shown.sentence,
            winner=estimate_view(shown.winner) if shown.winner else None,
            losers=[estimate_view(estimate) for estimate in shown.losers],
            rejections=[rejection_view(rejection) for rejection in shown.rejections],
            provenOptimal=shown.proven_optimal,
            decidedAt=zulu(shown.decided_at) if shown.decided_at else None,
            advice=list(shown.advice),
            state=job.state if job else None,
            lastMessage=job.last_message if job else None,
            siteReason=(seen.reason or None) if seen else None,
            siteReasonInWords=(seen.reason_words or None) if seen else None,
            siteReasonDecidedBy=(seen.decided_by or None) if seen else None,
            copies=[copy_view(copy) for copy in copies] if job else None,
            image=pinned_view(job.image) if job and job.image else None,
        )


def pinned_view(image: PinnedImage) -> dict[str, Any]:
    """An image's name, and the content that it meant when it was resolved."""
    return {
        "name": image.name,
        "reference": image.reference,
        "manifestDigest": image.manifest_digest,
        "indexDigest": image.index_digest,
        "downloadBytes": image.download_bytes,
        "resolvedAt": zulu(image.resolved_at),
        "isPrivate": image.is_private,
    }


def copy_view(copy: Attempt) -> dict[str, Any]:
    """A further place in which a job waits. ``kind``: HEDGE, or MOVE when the job is to leave its first place."""
    return {
        "number": copy.number,
        "systemId": copy.system_id,
        "queue": copy.queue,
        "state": copy.state,
        "kind": copy.role,
        "remoteJobId": copy.remote_id,
        "since": zulu(copy.submitted_at or copy.intended_at),
    }


def estimate_view(estimate: Estimate) -> dict[str, Any]:
    """An estimate with each of its terms."""
    return {
        "systemId": estimate.system_id,
        "queue": estimate.queue,
        "totalP50": estimate.total_p50_s,
        "totalP90": estimate.total_p90_s,
        "wait": _term(estimate.wait),
        "staging": _term(estimate.staging),
        "run": _term(estimate.run),
        "archive": _term(estimate.archive),
        "costs": dict(estimate.costs_s),
        "deadlineKept": estimate.kept_probability,
        "notes": list(estimate.notes),
    }


def rejection_view(rejection: Rejection) -> dict[str, Any]:
    """A rejection as data."""
    return {
        "systemId": rejection.system_id,
        "queue": rejection.queue,
        "reason": rejection.reason,
        "asked": rejection.asked,
        "limit": rejection.limit,
        "sentence": rejection_sentence(rejection),
    }


def _term(term: Term) -> dict[str, Any]:
    return {"p50": term.p50_s, "p90": term.p90_s, "source": term.source}
