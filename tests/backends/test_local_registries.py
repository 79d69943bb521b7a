"""How registries of images are asked on this machine: mirrors first, and only plain ones without TLS."""

from __future__ import annotations

import tomllib

from backends.local.registries import Registries


def test_a_mirror_stands_before_its_registry_and_only_plain_places_go_without_tls():
    made = Registries({"docker.io": ["here:5000/hub", "else.example"]}, frozenset({"here:5000", "lab:5001"})).conf()
    tables = {one["location"]: one for one in tomllib.loads(made)["registry"]}
    assert tables["docker.io"]["mirror"] == [
        {"location": "here:5000/hub", "insecure": True},
        {"location": "else.example"},
    ]
    assert "insecure" not in tables["docker.io"]
    assert tables["lab:5001"]["insecure"]
