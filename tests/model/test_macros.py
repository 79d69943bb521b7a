"""Macros that need no place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from scheduler.model.macros import JobIdentity, identity_values


@pytest.mark.parametrize(
    "created_at",
    [
        datetime(2026, 3, 1, 12, 5, 7, 0, UTC),
        datetime(2026, 3, 1, 23, 5, 7, 120, timezone(timedelta(hours=-5))),
        datetime(1999, 12, 31, 23, 59, 59, 999999, UTC),
    ],
)
def test_the_creation_macros_are_utc_in_the_forms_of_tapis(created_at):
    values = identity_values(JobIdentity(uuid="u", tenant="dev", owner="ann", created_at=created_at))
    at = created_at.astimezone(UTC)
    assert values["JobCreateTime"] == at.strftime("%H:%M:%SZ")
    assert values["JobCreateDate"] == at.strftime("%Y-%m-%dZ")
    assert values["JobCreateTimestamp"] == at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
