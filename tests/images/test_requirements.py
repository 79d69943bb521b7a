"""``NVIDIA_REQUIRE_*`` as NVIDIA's own tools read it; what the host does not tell leaves the answer open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.requirements import MAX_CHARS, all_hold, parse
from scheduler.model.errors import SpecInvalid

A100_535 = {"cuda": (12, 2), "driver": (535, 183, 1), "arch": (8, 0), "brand": "tesla"}
OFFICIAL = "cuda>=12.4 brand=tesla,driver>=470,driver<471 brand=tesla,driver>=535,driver<536"


@pytest.mark.parametrize(
    ("text", "facts", "holds"),
    [
        ("cuda>=12.2", {}, True),
        ("cuda>=12.4", {}, False),
        ("cuda>=12.2.0", {}, True),
        ("cuda!=12.2", {}, False),
        ("cuda=12.2", {}, True),
        ("cuda<13", {}, True),
        ("cuda<=12.1", {}, False),
        ("driver>535", {}, True),
        ("arch>=8.0,arch<9", {}, True),
        ("cuda>=12.4 driver>=535", {}, True),
        ("cuda>=12.4,driver>=535", {}, False),
        (OFFICIAL, {}, True),
        (OFFICIAL, {"brand": "geforce"}, False),
        (OFFICIAL, {"brand": None}, None),
        (OFFICIAL, {"brand": None, "cuda": (12, 4)}, True),
        (OFFICIAL, {"driver": None}, None),
        ("brand!=geforce", {}, True),
        ("BRAND=TESLA", {}, True),
        ("mood=good", {}, True),
        ("mood=good,cuda>=13", {}, False),
        ("mood=good cuda>=13", {}, False),
        ("cuda>=12.4", {"cuda": None}, None),
        ("cuda>=12.4,driver>=600", {"cuda": None}, False),
        ("cuda>=12.4 driver>=500", {"cuda": None}, True),
        ("", {}, True),
        ("  cuda>=12.2   cuda>=13  ", {}, True),
        ("cuda>=12.2,,", {}, True),
    ],
)
def test_a_requirement_holds_or_does_not_or_nobody_knows(text, facts, holds):
    assert parse(text).holds({**A100_535, **facts}) is holds


def test_several_variables_must_all_hold():
    fine, fails, unsure = parse("cuda>=12"), parse("cuda>=13"), parse("brand=tesla")
    assert all_hold([fine, fine], A100_535) is True
    assert all_hold([fine, fails], A100_535) is False
    assert all_hold([fine, unsure], {**A100_535, "brand": None}) is None
    assert all_hold([], A100_535) is True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cuda", "cannot read 'cuda'; write conditions such as cuda>=12.4"),
        ("cuda>=", "cannot read 'cuda>='"),
        ("cuda=>12", "cannot read 'cuda=>12'"),
        ("cuda>=new", "does not begin with a version number"),
        ("brand>tesla", "a brand has no order in 'brand>tesla'; use brand= or brand!="),
        (">=12", "cannot read"),
        ("cuda>=12" + " cuda>=12" * MAX_CHARS, "is longer than"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_variable_and_the_part(text, says):
    with pytest.raises(SpecInvalid) as refused:
        parse(text, "NVIDIA_REQUIRE_CUDA")
    assert str(refused.value).startswith("NVIDIA_REQUIRE_CUDA: ")
    assert says in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="cudabrnivex<>=!.,0123456789 \t\x00", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        requirement = parse(text)
    except SpecInvalid:
        return
    assert requirement.holds(A100_535) in (True, False)
    assert requirement.holds({}) in (True, None)
