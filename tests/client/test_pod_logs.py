"""Following a pod's log, in which standard output and standard error grow one after the other."""

from __future__ import annotations

from collections import Counter

import pytest
from berth.cli.pods import _unseen
from hypothesis import given
from hypothesis import strategies as st

LINES = st.lists(st.sampled_from(["a\n", "b\n", "ready\n", "\n", "a b\n"]), max_size=4).map("".join)


@pytest.mark.parametrize(
    ("shown", "text", "unseen"),
    [
        ("", "one\n", "one\n"),
        ("one\n", "one\ntwo\n", "two\n"),
        ("out\nerr\n", "out\nmore\nerr\n", "more\n"),
        ("out\nerr\n", "out\nmore\nerr\nworse\n", "more\nworse\n"),
        ("err\n", "out\nerr\n", "out\n"),
        ("out\nerr 1\n", "out\nerr 0\nerr 1\n", "err 0\n"),
        ("prompt> err\n", "prompt> yes\nerr\n", "yes\n"),
        ("same\n", "same\n", ""),
        ("gone\n", "another\n", "another\n"),
    ],
)
def test_what_is_new_is_shown_wherever_it_stands(shown: str, text: str, unseen: str) -> None:
    assert _unseen(shown, text) == unseen


def test_a_long_standard_error_hides_no_output() -> None:
    err = "".join(f"line {number}\n" for number in range(5000))
    assert _unseen("one\n" + err, "one\ntwo\n" + err) == "two\n"


def test_of_a_log_whose_beginning_is_shown_no_more_only_the_end_is_new() -> None:
    lines = [f"line {number}\n" for number in range(2000)]
    assert _unseen("".join(lines[:1500]), "".join(lines[500:])) == "".join(lines[1500:])


@given(st.lists(st.tuples(LINES, LINES), max_size=6))
def test_each_line_is_shown_once(steps: list[tuple[str, str]]) -> None:
    out = err = shown = told = ""
    for more_out, more_err in steps:
        out, err = out + more_out, err + more_err
        told += _unseen(shown, out + err)
        shown = out + err
    assert Counter(told.splitlines()) == Counter(shown.splitlines())
