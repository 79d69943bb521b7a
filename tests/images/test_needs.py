"""The record of what an image needs comes back from JSON as it went in, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from images.needs import CudaNeeds, Needs
from images.records import FORMAT, MAX_BYTES, dump, load
from images.versions import at_least, compare, version_of, version_text
from scheduler.model.errors import SpecInvalid

DIGEST = "sha256:" + "0" * 64
VERSIONS = st.lists(st.integers(0, 999_999_999), min_size=1, max_size=7).map(tuple)


@settings(
    max_examples=20, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck), deadline=None
)
@given(st.from_type(Needs))
def test_a_record_survives_its_journey_through_json(needs):
    assert load(Needs, dump(needs)) == needs


def test_text_that_is_no_unicode_is_refused_when_it_is_written():
    with pytest.raises(SpecInvalid, match="use valid Unicode"):
        dump(Needs(manifest_digest=DIGEST, labels={"a": "\ud800"}))


def test_versions_travel_as_people_write_them():
    needs = Needs(manifest_digest=DIGEST, cuda=CudaNeeds(runtimes=((12, 4, 127),)))
    assert json.loads(dump(needs))["cuda"]["runtimes"] == ["12.4.127"]


def test_what_is_not_known_differs_from_what_is_not_there():
    unknown, none = Needs(manifest_digest=DIGEST), Needs(manifest_digest=DIGEST, mpi=())
    assert load(Needs, dump(unknown)).mpi is None
    assert load(Needs, dump(none)).mpi == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": FORMAT + 1}, "needs.format: is not 1"),
        ({"format": None}, "needs.format: is not 1"),
        ({"quantum": {}}, "needs.quantum: is not known to this version"),
        ({"cuda": {"quantum": 1}}, "needs.cuda.quantum: is not known to this version"),
        ({"glibcxx": "new"}, "'new' does not begin with a version number"),
        ({"manifest_digest": None}, "needs.manifest_digest: Input should be a valid string"),
        ({"tree_seen": []}, "needs.tree_seen: Input should be a valid boolean"),
    ],
)
def test_another_record_is_refused_with_the_field_that_is_wrong(changes, says):
    document = {**json.loads(dump(Needs(manifest_digest=DIGEST))), **changes}
    with pytest.raises(SpecInvalid) as refused:
        load(Needs, json.dumps(document))
    assert says in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"a"', "{}", " " * (MAX_BYTES + 1)])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(SpecInvalid):
        load(Needs, text)


@pytest.mark.parametrize(
    ("text", "version"), [("12", (12,)), ("5.10.0-28-amd64", (5, 10, 0)), ("4.1.2rc3", (4, 1, 2)), ("1.2.", (1, 2))]
)
def test_a_version_is_the_numbers_at_the_beginning(text, version):
    assert version_of(text) == version


@pytest.mark.parametrize("text", ["", "v12", "-1", ".5", "٣"])
def test_a_text_without_a_version_is_refused(text):
    with pytest.raises(ValueError, match="version number such as"):
        version_of(text)


@pytest.mark.parametrize("text", ["1" * 10_000, "1." * 10_000])
def test_no_version_is_longer_than_people_write(text):
    assert len(version_text(version_of(text))) < 80


@settings(max_examples=50, deadline=None)
@given(VERSIONS, VERSIONS)
def test_versions_have_one_order(one, other):
    assert at_least(one, other) or at_least(other, one)
    assert compare(one, other) == -compare(other, one)
    assert compare(one, (*one, 0)) == 0
