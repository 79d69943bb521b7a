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
    return [(each.partition, each.nodes) for each in offers.parse_closures(text, PARTITIONS, 4)]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_asked_today_is_what_was_recorded(version):
    assert asked(version, "reservations") == shlex.join(offers.RESERVATIONS_ARGV)
    assert asked(version, "licences") == shlex.join(offers.LICENCES_ARGV)
    assert asked(version, "allocations") == shlex.join(offers.ALLOCATIONS_ARGV)


@pytest.mark.parametrize("version", VERSIONS)
def test_reservations_of_whole_nodes_are_read_from_every_version(version):
    partitions = "PartitionName=cpu Nodes=n[1-2]\nPartitionName=debug Nodes=n1\n"
    found = offers.parse_closures(recorded(version, "reservations"), partitions, 4)
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
    (one,) = offers.parse_closures(reservation(Nodes="n2"), PARTITIONS, 4)
    assert (one.reservation, one.starts_at, one.ends_at, one.maintenance) == ("r", utc(1000), utc(4600), False)


def test_maintenance_is_told_from_other_reservations():
    (one, _) = offers.parse_closures(reservation(Flags="MAINT,IGNORE_JOBS,SPEC_NODES,ALL_NODES"), PARTITIONS, 4)
    assert one.maintenance


@pytest.mark.parametrize(
    "harmless",
    [
        "No reservations in the system\n",
        reservation(Nodes="(null)"),
        reservation(StartTime="Unknown"),
        reservation(TRES="cpu=15"),
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
    assert offers.shown(offers.parse_closures, reservation(Nodes=nodes), PARTITIONS, 4) is None


def test_a_time_that_is_none_makes_the_answer_unknown():
    assert offers.shown(offers.parse_closures, reservation(EndTime="9" * 30), PARTITIONS, 4) is None


def test_what_a_site_does_not_answer_is_unknown():
    assert offers.shown(offers.parse_licences, None) is None
    assert offers.rights_of(None, None, None) == offers.Rights()


def test_licences_are_counted():
    text = "LicenseName=matlab@server Total=10 Used=3 Free=7 Reserved=0 Remote=yes\nLicenseName=old Total=2\n"
    assert offers.parse_licences(text) == (
        Licence(name="matlab@server", total=10, free=7),
        Licence(name="old", total=2, free=2),
    )
    assert offers.parse_licences("No licenses configured in Slurm.\n") == ()


def test_what_is_left_is_the_least_of_the_login_and_all_accounts_above_it():
    text = (
        "root||||\n"
        " science||cpu=1000,mem=5|cpu=400,mem=9|\n"
        "  lab|||cpu=10|\n"
        "   lab|alice|cpu=700|cpu=10|\n"
        "  teaching||cpu=100|cpu=150|\n"
        "   teaching|alice||cpu=1|\n"
        " free|||cpu=1|\n"
        "  free|alice||cpu=1|\n"
    )
    assert offers.parse_allocations(text) == {"lab": 600, "teaching": -50}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_left_of_an_account_is_read_from_every_version(version):
    left = offers.parse_allocations(recorded(version, "allocations"))
    assert left.keys() == {"lab"}
    assert 59_900 < left["lab"] <= 60_000


@pytest.mark.parametrize("version", VERSIONS)
def test_accounts_and_qualities_of_service_are_read_from_every_version(version):
    rights = offers.rights_of(recorded(version, "accounts"), recorded(version, "qos"), None)
    assert sorted(rights.associations, key=lambda each: each.account) == [
        Association(account=account, qos=("express", "normal"), default_qos="normal") for account in ("lab", "teaching")
    ]
    assert rights.qos == (QosLimit(name="normal"), QosLimit(name="express", max_walltime_s=600, max_cores_per_user=8))
