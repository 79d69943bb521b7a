"""Rows of jobs and attempts as the model's records: the columns carry the names of the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from scheduler.model.jobs import Attempt, Job
from scheduler.store import schema

JOB_COLUMNS = [schema.jobs.c[field.name] for field in fields(Job)]
ATTEMPT_COLUMNS = [schema.attempts.c[field.name] for field in fields(Attempt)]


def job_of(row: Mapping[Any, Any]) -> Job:
    """The job in a row of JOB_COLUMNS."""
    return Job(**row)


def attempt_of(row: Mapping[Any, Any]) -> Attempt:
    """The attempt in a row of ATTEMPT_COLUMNS."""
    return Attempt(**row)
