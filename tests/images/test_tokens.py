"""What a 401 asks for is understood however it is written, and garbage asks for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.tokens import Challenge, parse_challenges

REALM = {"realm": "https://auth.org/token", "service": "reg.org", "scope": "repository:a/b:pull,push"}
QUOTED = 'realm="https://auth.org/token",service="reg.org",scope="repository:a/b:pull,push"'

HEADERS = {
    f"Bearer {QUOTED}": [Challenge("bearer", REALM)],
    f"bearer  {QUOTED.replace(',s', ' , s')}": [Challenge("bearer", REALM)],
    f'Basic realm="a, b", Bearer {QUOTED}': [Challenge("basic", {"realm": "a, b"}), Challenge("bearer", REALM)],
    'Basic realm="say \\"hi\\""': [Challenge("basic", {"realm": 'say "hi"'})],
    "Basic realm=plain": [Challenge("basic", {"realm": "plain"})],
    "Negotiate": [Challenge("negotiate", {})],
    "": [],
    '="': [],
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_challenge_is_read(header):
    assert parse_challenges([header]) == HEADERS[header]


def test_several_headers_are_several_challenges():
    found = parse_challenges(['Basic realm="x"', f"Bearer {QUOTED}"])
    assert [one.scheme for one in found] == ["basic", "bearer"]


@given(st.text(alphabet='Bearer ="\\,; realm', max_size=60))
def test_any_header_is_read_to_its_end(header):
    parse_challenges([header])
