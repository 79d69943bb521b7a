"""Reservations, licences, accounts and qualities of service, as versions of Slurm write them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest

from backends.slurm import offers
from scheduler.model.errors import UnexpectedReply
from scheduler.model.snapshots import Association, Licence, QosLimit
from scheduler.model.units import utc
from tests.slurm.recorded import VERSIONS, asked, recorded

PARTITIONS = "PartitionName=cpu Nodes=n[1-4],gpu[01-02] State=UP\nPartitionName=debug Nodes=n1 State=UP\n"


def reservation(**changes: str) -> str:
    fields = {"ReservationName": "r", "StartTime": "1000", "EndTime": "4600", "Nodes": "n[1-4]", "Flags": "SPEC_NODES"}
    return " ".join(f"{name}={value}" for name, value in (fields | changes).items()) + "\n"


def closed(text: str):
    return [(each.partition, each.nodes) for each in offers.parse_closures(text, PARTITIONS)]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_asked_today_is_what_was_recorded(version):
    assert asked(version, "reservations") == shlex.join(offers.RESERVATIONS_ARGV)
    assert asked(version, "licences") == shlex.join(offers.LICENCES_ARGV)


@pytest.mark.parametrize("version", VERSIONS)
def test_reservations_of_whole_nodes_are_read_from_every_version(version):
    partitions = "PartitionName=cpu Nodes=n[1-2]\nPartitionName=debug Nodes=n1\n"
    found = offers.parse_closures(recorded(version, "reservations"), partitions)
    upgrade = [each for each in found if each.reservation == "upgrade"]
    assert [(each.partition, each.nodes, each.maintenance) for each in upgrade] == [
        ("cpu", 2, True),
        ("debug", 1, True),
    ]
    assert {(each.starts_at, each.ends_at) for each in upgrade} == {
        (datetime(2030, 1, 7, 6, tzinfo=UTC), datetime(2030, 1, 7, 18, tzinfo=UTC))
    }
    course = [each for each in found if each.reservation == "course"]
    assert sum(each.nodes for each in course if each.partition == "cpu") == 1
    assert not any(each.maintenance for each in course)
    assert {each.reservation for each in found} == {"upgrade", "course"}


@pytest.mark.parametrize("version", VERSIONS)
def test_licences_are_read_from_every_version(version):
    assert set(offers.parse_licences(recorded(version, "licences"))) >= {Licence(name="matlab", total=4, free=1)}


def test_a_reservation_closes_its_nodes_in_every_partition_that_holds_them():
    assert closed(reservation()) == [("cpu", 4), ("debug", 1)]
    assert closed(reservation(Nodes="gpu[01-02],elsewhere")) == [("cpu", 2)]
    (one,) = offers.parse_closures(reservation(Nodes="n2"), PARTITIONS)
    assert (one.reservation, one.starts_at, one.ends_at, one.maintenance) == ("r", utc(1000), utc(4600), False)


def test_maintenance_is_told_from_other_reservations():
    (one, _) = offers.parse_closures(reservation(Flags="MAINT,IGNORE_JOBS,SPEC_NODES,ALL_NODES"), PARTITIONS)
    assert one.maintenance


@pytest.mark.parametrize(
    "harmless",
    [
        "No reservations in the system\n",
        reservation(Nodes="(null)"),
        reservation(StartTime="Unknown"),
        reservation().rstrip() + " NodeName=n1 CoreIDs=0-1\n",
        "",
    ],
    ids=["none", "licences-only", "no-time", "some-cores", "empty"],
)
def test_what_closes_no_whole_node_is_left_out(harmless):
    assert closed(harmless) == []


@pytest.mark.parametrize("nodes", ["n[1-x]", "n[1-999999999]", "n[1-9999][1-9999]"])
def test_what_is_no_list_of_nodes_makes_the_answer_unknown(nodes):
    with pytest.raises(UnexpectedReply):
        closed(reservation(Nodes=nodes))
    assert offers.shown(offers.parse_closures, reservation(Nodes=nodes), PARTITIONS) is None


def test_what_a_site_does_not_answer_is_unknown():
    assert offers.shown(offers.parse_licences, None) is None
    assert offers.rights_of(None, None) == offers.Rights()


def test_licences_are_counted():
    text = "LicenseName=matlab@server Total=10 Used=3 Free=7 Reserved=0 Remote=yes\nLicenseName=old Total=2\n"
    assert offers.parse_licences(text) == (
        Licence(name="matlab@server", total=10, free=7),
        Licence(name="old", total=2, free=2),
    )
    assert offers.parse_licences("No licenses configured in Slurm.\n") == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_accounts_and_qualities_of_service_are_read_from_every_version(version):
    rights = offers.rights_of(recorded(version, "accounts"), recorded(version, "qos"))
    assert sorted(rights.associations, key=lambda each: each.account) == [
        Association(account=account, qos=("express", "normal"), default_qos="normal") for account in ("lab", "teaching")
    ]
    assert rights.qos == (QosLimit(name="normal"), QosLimit(name="express", max_walltime_s=600, max_cores_per_user=8))
