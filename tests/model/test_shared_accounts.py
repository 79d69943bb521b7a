"""Whose directory is whose, where all users of a system have one account."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import JobSpec
from scheduler.model.macros import JobIdentity, place_of
from scheduler.model.runs import Runtime
from scheduler.model.shared_accounts import may_be_given
from scheduler.model.systems import System
from tests.reconcile.world import CLUSTER

OWN, OTHER = "0e0b1b5e-3f0a-4d1c-9f0e-2f1f3c4d5e6f-007", "1f1c2c6f-4a1b-4e2d-8a1f-3a2a4d5e6f70-007"
SHARED = replace(CLUSTER, effective_user_id="lab", owner="admin")


def shared(working_dir: str) -> System:
    return replace(SHARED, job_working_dir=working_dir)


@pytest.mark.parametrize(
    ("path", "given"),
    [
        (f"/work/jobs/{OWN}", True),
        (f"/work/jobs/{OWN}/output", True),
        (f"/jobs/{OWN}/archive", True),
        ("/work/results", True),
        ("/data/shared", True),
        (f"/work/jobs/{OTHER}", False),
        (f"/work/jobs/{OTHER}/{OWN}", False),
        (f"/work/jobs/{OWN}x", False),
        ("/work/jobs", False),
        ("/work", False),
        ("/", False),
        ("//work//./jobs", False),
        ("/work/pod-volumes/dev/data", False),
        (f"/work/pod-volumes/{OWN}", False),
        ("/work/pods/x", False),
        ("/work/.berth/markers", False),
    ],
)
def test_a_job_is_given_no_directory_with_files_of_others_in_or_around_it(path: str, given: bool) -> None:
    assert may_be_given(shared("/work"), "work", OWN, path) is given


@pytest.mark.parametrize(
    ("path", "given"),
    [
        (f"/work/bob/jobs/{OWN}", True),
        ("/work/bob/results", True),
        ("/work/alice/results", False),
        (f"/work/alice/jobs/{OWN}", False),
        ("/work/bob", False),
        ("/work/bob/pod-volumes", False),
        ("/elsewhere", True),
    ],
)
def test_a_working_directory_of_ones_own_is_open_but_for_what_berth_keeps_there(path: str, given: bool) -> None:
    assert may_be_given(shared("/work/${JobOwner}"), "work/bob", OWN, path) is given


@pytest.mark.parametrize("field", ["exec_dir", "input_dir", "output_dir", "archive_dir"])
def test_a_job_that_asks_for_such_a_directory_has_no_place_there_but_the_systems_owner_has(field: str) -> None:
    def placed(owner: str, system: System = SHARED):
        who = JobIdentity(uuid=OWN, tenant="dev", owner=owner, created_at=datetime(2026, 3, 1, tzinfo=UTC))
        asked = {"name": "a", "app_id": "b", "app_version": "1", "image": "docker://c", "runtime": Runtime.SINGULARITY}
        return place_of(JobSpec(**asked, **{field: f"${{JobWorkingDir}}/jobs/{OTHER}"}), system, None, who)

    with pytest.raises(SpecInvalid, match="files of others"):
        placed("bob")
    assert placed("admin")
    own_accounts = replace(SHARED, effective_user_id="${apiUserId}")
    assert placed("bob", own_accounts), "there the system itself keeps them apart"
