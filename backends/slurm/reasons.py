"""Why a job waits: Slurm's word for it in plain words, and who can change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Decider(StrEnum):
    """Who can do something about a reason to wait."""

    SCHEDULER = "the site's scheduler"
    SITE = "the site's administrators"
    ACCOUNT = "whoever manages the account"
    USER = "the job's owner"
    OTHERS = "jobs that run or wait before it"


@dataclass(frozen=True, slots=True)
class WhyWaiting:
    """A reason for people: a clause that follows "it waits because", and who decides when that ends."""

    words: str
    decider: Decider


D = Decider

REASONS: Mapping[str, WhyWaiting] = {
    "Priority": WhyWaiting("jobs of higher priority wait before it", D.OTHERS),
    "Resources": WhyWaiting("it is next in line and the resources that it needs are taken", D.OTHERS),
    "Reservation": WhyWaiting("the reservation that it asks for has not begun", D.SITE),
    "ReservationDeleted": WhyWaiting("the reservation that it asked for is gone", D.SITE),
    "Licenses": WhyWaiting("the licences that it asks for are taken", D.OTHERS),
    "Dependency": WhyWaiting("it waits for another job to end", D.USER),
    "DependencyNeverSatisfied": WhyWaiting(
        "the job that it depends on did not end as it had to; it will never start", D.USER
    ),
    "BeginTime": WhyWaiting("the time at which it may begin has not come", D.USER),
    "JobHeldUser": WhyWaiting("its owner holds it back", D.USER),
    "JobHeldAdmin": WhyWaiting("an administrator holds it back", D.SITE),
    "JobHoldMaxRequeue": WhyWaiting("it was requeued too often and is held", D.SITE),
    "JobArrayTaskLimit": WhyWaiting("as many tasks of its array run at once as were asked for", D.USER),
    "PartitionDown": WhyWaiting("the partition starts no jobs", D.SITE),
    "PartitionInactive": WhyWaiting("the partition takes no jobs", D.SITE),
    "PartitionNodeLimit": WhyWaiting("it asks for more nodes than the partition allows", D.USER),
    "PartitionTimeLimit": WhyWaiting("it asks for more walltime than the partition allows", D.USER),
    "PartitionConfig": WhyWaiting("it asks for what the partition does not allow", D.USER),
    "AccountNotAllowed": WhyWaiting("its account may not use the partition", D.SITE),
    "QOSNotAllowed": WhyWaiting("its quality of service may not use the partition", D.SITE),
    "AssociationJobLimit": WhyWaiting("its account or user has as many jobs running as it may", D.ACCOUNT),
    "AssociationResourceLimit": WhyWaiting("its account or user uses as much at once as it may", D.ACCOUNT),
    "AssociationTimeLimit": WhyWaiting("its account has used up its time", D.ACCOUNT),
    "QOSJobLimit": WhyWaiting("as many jobs run under its quality of service as may", D.ACCOUNT),
    "QOSResourceLimit": WhyWaiting("its quality of service uses as much at once as it may", D.ACCOUNT),
    "QOSTimeLimit": WhyWaiting("the time under its quality of service is used up", D.ACCOUNT),
    "QOSUsageThreshold": WhyWaiting("its quality of service asks for less usage in the past", D.ACCOUNT),
    "InvalidAccount": WhyWaiting("its account is not valid", D.USER),
    "InvalidQOS": WhyWaiting("its quality of service is not valid", D.USER),
    "NodeDown": WhyWaiting("a node that it needs is down", D.SITE),
    "BadConstraints": WhyWaiting("no nodes meet its constraints", D.USER),
    "NonZeroExitCode": WhyWaiting("it ended with an error and is held", D.USER),
    "JobLaunchFailure": WhyWaiting("its nodes could not start it; it is held", D.SITE),
    "RaisedSignal": WhyWaiting("it was ended by a signal and is held", D.USER),
    "DeadLine": WhyWaiting("it cannot end before its deadline any more", D.USER),
    "BurstBufferResources": WhyWaiting("room in the burst buffer is taken", D.OTHERS),
    "BurstBufferStageIn": WhyWaiting("its files are being brought to the burst buffer", D.SCHEDULER),
    "FedJobLock": WhyWaiting("the clusters of a federation agree on where it starts", D.SCHEDULER),
    "FrontEndDown": WhyWaiting("no front end can start it", D.SITE),
    "Cleaning": WhyWaiting("it was requeued and its nodes are being cleaned", D.SCHEDULER),
    "Prolog": WhyWaiting("its nodes are being made ready", D.SCHEDULER),
    "SchedDefer": WhyWaiting("the scheduler starts no job at once; it looks at it with its next pass", D.SCHEDULER),
    "SystemFailure": WhyWaiting("the scheduler itself failed", D.SITE),
    "WaitingForScheduling": WhyWaiting("the scheduler has not looked at it yet", D.SCHEDULER),
    "None": WhyWaiting("the scheduler has not looked at it yet", D.SCHEDULER),
}
"""Words that Slurm writes alone."""

BEGINNINGS: Mapping[str, WhyWaiting] = {
    "ReqNodeNotAvail, Reserved for maintenance": WhyWaiting(
        "the nodes are kept free for a maintenance that its walltime would reach", D.SITE
    ),
    "ReqNodeNotAvail": WhyWaiting("nodes that it needs are down, drained, or reserved for others", D.SITE),
    "Nodes required for job are DOWN, DRAINED or reserved": WhyWaiting(
        "nodes that it needs are down, drained, or kept for jobs in partitions of higher priority", D.SITE
    ),
    "QOSGrp": WhyWaiting("all jobs under its quality of service together use as much as they may", D.ACCOUNT),
    "QOSMax": WhyWaiting("its owner uses as much under this quality of service as one user or job may", D.ACCOUNT),
    "QOSMin": WhyWaiting("it asks for less than its quality of service demands", D.USER),
    "AssocGrp": WhyWaiting("all jobs of its account together use as much as they may", D.ACCOUNT),
    "AssocMax": WhyWaiting("its owner uses as much of the account as one user or job may", D.ACCOUNT),
    "MaxBillingPerAccount": WhyWaiting("its account is charged as much at once as it may be", D.ACCOUNT),
    "Max": WhyWaiting("a limit of its account or user is reached", D.ACCOUNT),
    "launch failed requeued held": WhyWaiting("its nodes could not start it; it is held", D.SITE),
}
"""Families of words, and sentences that go on with names of nodes; the first that fits, in this order."""

PUT_OFF = "BeginTime"
"""Why a job waits that asked for no instant to begin: its launch failed, and it is let in again after two minutes."""


def in_words(reason: str) -> WhyWaiting | None:
    """The reason for people; None for a word that is not known here."""
    text = reason.strip().strip("()")
    if text in REASONS:
        return REASONS[text]
    return next((why for begins, why in BEGINNINGS.items() if text.startswith(begins)), None)
