"""Manifests: read within bounds, refused in words, and chosen for the system that will run the image."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import ImageUnusable
from images.inspect import inspect
from images.manifests import Config, Index, Manifest, choose, parse_config, parse_document, runs_on
from images.needs import StartCommand
from images.platforms import Platform
from images.records import dump

DIGEST = "sha256:" + "a" * 64
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 10}
CONFIG = {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 2}
MANIFEST = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER, LAYER]}


def manifest(**changes) -> bytes:
    return json.dumps({**MANIFEST, **changes}).encode()


def platform(text: str) -> Platform:
    return Platform(*text.split("/"))


def entry(text: str, size: int, **more) -> dict:
    where = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)) if text else None
    return {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": size, "platform": where, **more}


def index(*entries: dict) -> Index:
    return parse_document(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), "app")


def test_a_manifest_is_read_whichever_dialect_it_is_in():
    oci = parse_document(manifest(), "app")
    docker = parse_document(
        manifest(
            mediaType="application/vnd.docker.distribution.manifest.v2+json",
            config={**CONFIG, "mediaType": "application/vnd.docker.container.image.v1+json"},
        ),
        "app",
    )
    assert isinstance(oci, Manifest)
    assert (oci.size_bytes, docker.size_bytes) == (20, 20)
    assert oci.is_image
    assert docker.is_image


def test_a_config_is_read_as_its_builder_meant_it():
    raw = {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "config": {"Env": ["A=1=2", "B"], "Entrypoint": ["/e"], "Cmd": None, "Labels": {"k": "v"}, "WorkingDir": "/w"},
        "rootfs": {"diff_ids": [DIGEST]},
    }
    assert parse_config(json.dumps(raw).encode(), "app") == Config(
        platform=platform("linux/arm64/v8"),
        entrypoint=("/e",),
        env={"A": "1=2", "B": ""},
        labels={"k": "v"},
        working_dir="/w",
        diff_ids=(DIGEST,),
    )


BROKEN = {
    "not JSON": b"{",
    "not an object": b"[]",
    "deep": b"[" * 100_000,
    "too large": b" " * (4 * 2**20 + 1),
    "neither kind": b"{}",
    "both kinds": manifest(manifests=[]),
    "called an index": manifest(mediaType="application/vnd.oci.image.index.v1+json"),
    "digest of another kind": manifest(layers=[{**LAYER, "digest": "sha512:" + "a" * 128}]),
    "digest that leads elsewhere": manifest(layers=[{**LAYER, "digest": "sha256:../../../etc/passwd"}]),
    "no size": manifest(layers=[{"digest": DIGEST}]),
    "negative size": manifest(layers=[{**LAYER, "size": -1}]),
    "size that is no number": manifest(layers=[{**LAYER, "size": True}]),
    "size beyond all disks": manifest(layers=[{**LAYER, "size": 2**62}]),
    "too many layers": manifest(layers=[LAYER] * 513),
    "layers that are no list": manifest(layers={"0": LAYER}),
    "config beyond bounds": manifest(config={**CONFIG, "size": 2**30}),
    "no config": manifest(config=None),
    "annotations that are no texts": manifest(annotations={"a": 1}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_document_out_of_shape_or_bounds_is_refused(name):
    with pytest.raises(ImageUnusable, match="'app' is not a valid image"):
        parse_document(BROKEN[name], "app")


def test_halves_of_characters_become_text_that_a_record_can_hold():
    labels = {"berth.require.\ud800": "\udfff", "raw": "?"}
    said = {"Env": ["CUDA_VERSION=\udce9"], "Cmd": ["\N{GRINNING FACE}\ud83d"], "Labels": labels}
    raw = json.dumps({"config": said}).encode().replace(b"?", b"\xed\xa0\x80")
    config = parse_config(raw, "app")
    assert config.env == {"CUDA_VERSION": "\ufffd"}
    assert config.command == ("\N{GRINNING FACE}\ufffd",)
    assert config.labels == {"berth.require.\ufffd": "\ufffd", "raw": "\ufffd"}
    command = StartCommand(cmd=config.command, env=config.env)
    assert dump(inspect(DIGEST, command=command, labels=config.labels))


@pytest.mark.parametrize("said", ["application/vnd.docker.distribution.manifest.v1+prettyjws", ""])
def test_schema_1_is_refused_with_the_way_out(said):
    raw = json.dumps({"schemaVersion": 1 if not said else 2, "fsLayers": []}).encode()
    with pytest.raises(ImageUnusable, match=r"schema 1.*push it again"):
        parse_document(raw, "app", said)


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b'{"config": []}',
        b'{"config": {"Env": "A=1"}}',
        b'{"config": {"Env": [1]}}',
        b'{"rootfs": {"diff_ids": ["x"]}}',
    ],
)
def test_a_config_out_of_shape_is_refused(raw):
    with pytest.raises(ImageUnusable, match="not a valid image"):
        parse_config(raw, "app")


CHOICES = [
    ("linux/amd64", ["linux/arm64", "linux/amd64", "windows/amd64"], 1),
    ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
    ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1"], 1),
    ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64"], 0),
    ("linux/arm64", ["linux/arm64/v8", "linux/arm64/v9"], 0),
    ("linux/arm64/v8", ["linux/arm64"], 0),
    ("linux/arm64/v9", ["linux/arm64/v8", "linux/arm64/v8.2"], 1),
    ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64/v8"], 1),
    ("linux/arm", ["linux/arm/v8", "linux/arm/v6"], 1),
    ("linux/ppc64le", ["linux/s390x", "linux/ppc64le"], 1),
    ("linux/amd64", ["unknown/unknown", "linux/amd64"], 1),
    ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
]


@pytest.mark.parametrize(("target", "offered", "chosen"), CHOICES)
def test_the_highest_variant_that_runs_on_the_target_is_chosen(target, offered, chosen):
    found = index(*(entry(text, size) for size, text in enumerate(offered)))
    assert choose(found, platform(target), "app").size_bytes == chosen


@pytest.mark.parametrize("offered", [["linux/arm64"], ["linux/amd64/v4"], ["unknown/unknown"], []])
def test_no_manifest_for_the_target_is_said_with_what_there_is(offered):
    with pytest.raises(ImageUnusable, match=r"no manifest for linux/amd64/v3; it has"):
        choose(index(*(entry(text, 1) for text in offered)), platform("linux/amd64/v3"), "app")


def test_attestations_are_no_images_even_when_they_claim_a_platform():
    claimed = entry("linux/amd64", 0, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    assert choose(index(claimed, entry("linux/amd64", 1)), platform("linux/amd64"), "app").size_bytes == 1


def test_a_single_manifest_without_a_platform_is_taken_for_its_config_says_it():
    assert choose(index(entry("", 7)), platform("linux/amd64"), "app").size_bytes == 7


variants = st.sampled_from(["", "v1", "v2", "v3", "v4", "v7", "v8", "v8.1", "odd"])


@given(st.sampled_from(["amd64", "arm64", "arm", "riscv64"]), variants, variants, variants)
def test_what_runs_on_a_lesser_target_runs_on_a_greater_one(architecture, image, lesser, greater):
    a, b, c = (Platform("linux", architecture, variant) for variant in (image, lesser, greater))
    assert not (runs_on(a, b) and runs_on(b, c)) or runs_on(a, c)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["config", "layers", "manifests", "digest", "size", "platform", "os"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused(value):
    for read in (parse_document, parse_config):
        try:
            read(json.dumps(value).encode(), "app")
        except ImageUnusable:
            continue
