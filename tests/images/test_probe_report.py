"""What a node printed becomes facts, or is left out; the owner's word stands above it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.host import FactSource, HostFacts
from images.probe_report import MAX_BYTES, edited, parse_report, refreshed
from images.records import dump, load
from scheduler.model.errors import SpecInvalid, UnexpectedReply

NOW = datetime(2026, 11, 22, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*HostFacts.__dataclass_fields__, "cpu", "nonsense"])


def report(at=1_700_000_000, **facts):
    return json.dumps({"format": 1, "at": at, "facts": {name: [value, "seen"] for name, value in facts.items()}})


def host_of(**facts):
    return parse_report(report(**facts), "gpu", NOW).host


def test_a_report_is_found_among_what_a_sites_profile_prints():
    text = "Welcome!\n{not ours}\n" + report(kernel="5.14.0-427.el9") + "\nGoodbye\n"
    host = parse_report(text, "gpu", NOW).host
    assert host.kernel == (5, 14, 0)
    assert host.evidence["kernel"].seen_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_a_clock_that_is_ahead_dates_no_fact_later_than_now():
    host = parse_report(report(at=2**32, kernel="5.14"), "gpu", NOW).host
    assert host.evidence["kernel"].seen_at == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no report",
        "{}",
        '{"format": 2, "at": 1, "facts": {}}',
        '{"format": 1, "at": -1, "facts": {}}',
        "{" * 99_999,
    ],
)
def test_no_report_is_an_unexpected_reply(text):
    with pytest.raises(UnexpectedReply, match="printed no report"):
        parse_report(text, "gpu", NOW)


def test_a_flood_is_an_unexpected_reply():
    with pytest.raises(UnexpectedReply, match="more than"):
        parse_report("x" * (MAX_BYTES + 1), "gpu", NOW)


def test_a_fact_that_is_not_understood_is_unknown_and_harms_no_other():
    facts = {"kernel": "new", "gpus": [{"colour": "red"}], "cpu": 7, "evidence": {}, "node_class": "x", "odd": 1}
    found = parse_report(report(memory_bytes=2**30, **facts), "gpu", NOW)
    assert found.left_out == ("cpu", "evidence", "gpus", "kernel", "node_class", "odd")
    assert found.host.memory_bytes == 2**30
    assert set(found.host.evidence) == {"memory_bytes"}


def test_control_characters_and_endless_texts_do_not_come_in():
    host = host_of(gpus=[{"name": "A100\x1b[31m\n" + "x" * 10_000}])
    assert host.gpus[0].name.startswith("A100[31mx")
    assert len(host.gpus[0].name) < 2001


@pytest.mark.parametrize(
    ("cpu", "architecture", "target"),
    [
        ({"machine": "x86_64", "vendor": "AuthenticAMD", "flags": ["sse", "sse2"]}, "amd64", "x86_64"),
        ({"machine": "x86_64"}, "amd64", None),
        ({"machine": "aarch64", "vendor": "0x41", "part": "0xd0c", "flags": ["fp", "asimd"]}, "arm64", "aarch64"),
        ({"machine": "pdp11", "flags": ["x"]}, None, None),
    ],
)
def test_the_kernels_words_become_ours(cpu, architecture, target):
    host = host_of(cpu=cpu)
    assert (host.architecture, host.microarchitecture) == (architecture, target)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, JSON | st.tuples(JSON, JSON), max_size=4))
def test_any_facts_are_taken_or_left_out(facts):
    text = json.dumps({"format": 1, "at": 1, "facts": facts})
    if "\\ud" in text or len(text) > MAX_BYTES:
        return
    found = parse_report(text, "gpu", NOW)
    assert set(found.left_out) <= set(facts)
    assert load(HostFacts, dump(found.host)) == found.host


def test_the_owners_word_stands_above_a_probe_and_says_so():
    probed = host_of(kernel="5.14", gpu_driver="535.1", user_namespaces=True)
    host = edited(probed, {"gpu_driver": "550.54", "translators": ["wi4mpi"]}, "carol", NOW)
    assert (host.gpu_driver, host.translators) == ((550, 54), ("wi4mpi",))
    assert host.evidence["gpu_driver"].source is FactSource.OWNER
    assert host.evidence["gpu_driver"].detail == "set by carol"
    assert host.evidence["kernel"].source is FactSource.PROBE


def test_an_owner_may_withdraw_a_fact():
    host = edited(host_of(kernel="5.14"), {"kernel": None}, "carol", NOW)
    assert host.kernel is None
    assert "kernel" not in host.evidence


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "facts.colour: is no fact of nodes; use "),
        ({"evidence": {}}, "facts.evidence: is no fact of nodes"),
        ({"gpus": [{"name": 1}]}, "facts.gpus.0.name: Input should be a valid string"),
        ({"kernel": "new"}, "facts.kernel: Value error, 'new' does not begin with a version number"),
        ({"memory_bytes": "much"}, "facts.memory_bytes: Input should be a valid integer"),
    ],
)
def test_an_edit_that_cannot_be_meant_names_the_field(changes, says):
    with pytest.raises(SpecInvalid) as refused:
        edited(HostFacts(node_class="gpu"), changes, "carol", NOW)
    assert says in str(refused.value)


def test_a_new_probe_keeps_what_it_did_not_find_and_what_the_owner_said():
    known = edited(host_of(kernel="5.14", gpu_driver="535.1", memory_bytes=1), {"kernel": "6.1"}, "carol", NOW)
    later = NOW + timedelta(days=1)
    probed = parse_report(report(kernel="5.15", gpu_driver="550.1"), "gpu", later).host
    host = refreshed(known, probed)
    assert (host.kernel, host.gpu_driver, host.memory_bytes) == ((6, 1), (550, 1), 1)
    assert host.evidence["kernel"].source is FactSource.OWNER


def test_facts_survive_their_journey_through_json():
    host = edited(host_of(kernel="5.14", rooms={"home": {"path": "/home"}}), {"fabrics": ["verbs"]}, "carol", NOW)
    assert load(HostFacts, dump(host)) == host
