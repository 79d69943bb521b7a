"""References: what people write is read by Docker's rules, written back the same, and refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.reference import (
    ArchiveReference,
    LibraryReference,
    Packing,
    PathReference,
    RegistryReference,
    Scheme,
    UrlReference,
    parse_reference,
)
from scheduler.model.errors import SpecInvalid

DIGEST = "sha256:" + "0123456789abcdef" * 4

READ = {
    "python": RegistryReference("docker.io", "library/python", "latest"),
    "python:3.12-slim": RegistryReference("docker.io", "library/python", "3.12-slim"),
    "docker://python:3.12": RegistryReference("docker.io", "library/python", "3.12"),
    "bitnami/spark": RegistryReference("docker.io", "bitnami/spark", "latest"),
    "docker.io/python": RegistryReference("docker.io", "library/python", "latest"),
    "index.docker.io/library/python:3": RegistryReference("docker.io", "library/python", "3"),
    "registry-1.docker.io/a/b": RegistryReference("docker.io", "a/b", "latest"),
    "localhost/app:1": RegistryReference("localhost", "app", "1"),
    "localhost:5000/app": RegistryReference("localhost:5000", "app", "latest"),
    "login:5000/demo/busybox:1": RegistryReference("login:5000", "demo/busybox", "1"),
    "GHCR.io/org/app:V1": RegistryReference("ghcr.io", "org/app", "V1"),
    "Registry/app": RegistryReference("registry", "app", "latest"),
    "[::1]:5000/app:1": RegistryReference("[::1]:5000", "app", "1"),
    "quay.io/a/b/c__d-e.f:x": RegistryReference("quay.io", "a/b/c__d-e.f", "x"),
    f"python@{DIGEST}": RegistryReference("docker.io", "library/python", "", DIGEST),
    f"python:3@{DIGEST}": RegistryReference("docker.io", "library/python", "3", DIGEST),
    "oras://ghcr.io/org/tool:1.sif": RegistryReference("ghcr.io", "org/tool", "1.sif", scheme=Scheme.ORAS),
    "oci:images/app:1": ArchiveReference(Packing.OCI, "images/app", "1"),
    "oci:/images/app": ArchiveReference(Packing.OCI, "/images/app"),
    "oci-archive:/a/app.tar": ArchiveReference(Packing.OCI_ARCHIVE, "/a/app.tar"),
    "docker-archive:/a/app.tar:org/app:1": ArchiveReference(Packing.DOCKER_ARCHIVE, "/a/app.tar", "org/app:1"),
    "library://alpine": LibraryReference("library.sylabs.io", "library/default/alpine"),
    "library://lab/alpine:3": LibraryReference("library.sylabs.io", "lab/default/alpine", "3"),
    "library://cloud.example.org/lab/tools/App:1.0": LibraryReference("cloud.example.org", "lab/tools/App", "1.0"),
    "https://zenodo.org/records/1/files/app.sif?download=1": UrlReference(
        "https://zenodo.org/records/1/files/app.sif?download=1"
    ),
    f"https://host:8443/app.sif#{DIGEST}": UrlReference("https://host:8443/app.sif", DIGEST),
    "/scratch/images/app.sif": PathReference("/scratch/images/app.sif"),
}


@pytest.mark.parametrize("text", READ)
def test_a_reference_is_read_by_the_rules_of_its_kind(text):
    assert parse_reference(text) == READ[text]


REFUSED = {
    "": "names no image",
    "a b": "blank",
    "python\n:3": "cannot be printed",
    "x" * 3000: "too long",
    "docker://": "lacks part of its name",
    "docker://ghcr.io/": "lacks part of its name",
    "ghcr.io/Org/app": "'Org'",
    "ghcr.io//app": "lacks part of its name",
    "ghcr.io/../etc": "'..'",
    "ghcr.io/a/./b": "'.'",
    "python:": "tag",
    "python:.hidden": "tag",
    "python:" + "a" * 129: "tag",
    "python:3;reboot": "tag",
    "$(reboot)": "'$(reboot)'",
    "python@sha256:abc": "digest",
    "python@sha512:" + "a" * 128: "digest",
    "python@sha256:" + "A" * 64: "digest",
    "host:99999/app": "host",
    "host:0/app": "host",
    "-x.org/app": "host",
    "user:secret@host.org/app": "digest",
    "host.org:5000:6/app": "host",
    "a/" * 200 + "b": "too long",
    "http://host/app.sif": "plain http",
    "shub://org/app": "'shub://'",
    "file:///etc/passwd": "'file://'",
    "https://user:secret@host/app.sif": "login",
    "https://host": "no file",
    "https://host/a b": "blank",
    "https://host/a\\b": "not a URL",
    "https://host/app.sif#md5:1": "digest",
    "https://[::1/app.sif": "not a URL",
    "oci:": "no file",
    "oci:../../etc": "elsewhere",
    "oci:images:": "nothing after",
    "oci:images:a:b": "tag",
    "oci-archive:a.tar:$(id)": "tag",
    "/": "elsewhere",
    "/images/../../etc/shadow": "elsewhere",
    "library://a/b/c/d": "library",
    "library://a//b": "library",
    "library://../b": "library",
    "library://a:$(id)": "library",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_reference_is_refused_with_what_is_wrong_and_how_to_write_it(text):
    with pytest.raises(SpecInvalid) as refused:
        parse_reference(text, field="notes.berth.image")
    (problem,) = refused.value.problems
    assert problem.field == "notes.berth.image"
    assert REFUSED[text] in problem.wrong
    assert problem.fix or "too long" in problem.wrong


def test_an_error_never_shows_control_characters_of_the_text():
    with pytest.raises(SpecInvalid) as refused:
        parse_reference("a\x1b[2J")
    assert "\x1b" not in str(refused.value)


word = st.text("ab0", min_size=1, max_size=4)
part = st.lists(word, min_size=1, max_size=2).map("-".join) | st.lists(word, min_size=2, max_size=2).map("__".join)
repository = st.lists(part, min_size=2, max_size=3).map("/".join)
tag = st.text("aZ0_", min_size=1, max_size=5) | st.sampled_from(["3.12-slim", "latest", "sha256-0", "v1.0.sif"])
digest = st.text("0123456789abcdef", min_size=8, max_size=8).map(lambda text: f"sha256:{text * 8}")
host = st.sampled_from(["docker.io", "ghcr.io", "localhost", "localhost:5000", "login:5000", "[::1]:5000"])
path = st.lists(part, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
references = st.one_of(
    st.builds(RegistryReference, host, repository, tag, st.just("") | digest, st.sampled_from(Scheme)),
    st.builds(RegistryReference, host, repository, st.just(""), digest),
    st.builds(ArchiveReference, st.sampled_from(Packing), path, st.just("") | tag),
    st.builds(
        LibraryReference, st.just("library.example.org"), st.lists(part, min_size=3, max_size=3).map("/".join), tag
    ),
    st.builds(UrlReference, path.map("https://host.example.org{}".format), st.just("") | digest),
    st.builds(PathReference, path),
)


@given(references)
def test_a_reference_reads_back_as_it_was_written(reference):
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=80) | st.text(alphabet="abA.:/@-_#$ 0\n", max_size=40))
def test_any_text_is_read_stably_or_refused(text):
    try:
        reference = parse_reference(text)
    except SpecInvalid:
        return
    assert parse_reference(str(reference)) == reference
