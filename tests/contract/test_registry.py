"""What the client asks of registries, asked of the fake and of Debian's registry: so that the fake is no fiction."""

from __future__ import annotations

import httpx
import pytest

from images.access import Access
from images.errors import ImageUnknown, TagMoved
from images.exchange import Exchange, Rules
from images.platforms import Platform
from images.reference import parse_reference
from images.registry import Registry
from images.sources import FileSink
from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run
from testbed.registry import debian_registry
from tests.fakes.registry import INDEX, MANIFEST, FakeRegistry, FakeWeb

AMD64 = Platform("linux", "amd64")


class Subject:
    """A registry that was pushed to: where it is, and what reaches it."""

    def __init__(self, host: str, transport: httpx.AsyncBaseTransport | None) -> None:
        self.host = host
        http = httpx.AsyncClient(transport=transport)
        self.client = Registry(Access(Exchange(http, Rules(plain_http=frozenset({host})))))

    def reference(self, name: str):
        return parse_reference(f"{self.host}/{name}")


@pytest.fixture(scope="module")
def content() -> FakeRegistry:
    """An index of two platforms, a note that refers to it by the fallback tag, and an image with a larger layer."""
    registry = FakeRegistry(has_referrers=False)
    index = registry.push_index("lab/app", "1", "linux/amd64", "linux/arm64/v8")
    registry.push_image("lab/app", "plain", (bytes(range(256)) * 4096,))
    subject = {name: index[name] for name in ("mediaType", "digest", "size")}
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", **registry.push("lab/app", b"{}")}
    about = {"artifactType": "text/note", "subject": subject, "config": empty, "layers": [empty]}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, **about}
    note = {**registry.push_document("lab/app", document, MANIFEST), "artifactType": "text/note"}
    fallback = str(index["digest"]).replace(":", "-")
    registry.push_document("lab/app", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [note]}, INDEX, fallback)
    return registry


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    """The address of Debian's registry."""
    try:
        require_root()
        with debian_registry(tmp_path_factory.mktemp("registry")) as host:
            yield host
    except TestbedError as error:
        cannot_run(str(error))


@pytest.fixture(params=["fake", pytest.param("debian", marks=pytest.mark.testbed)])
def subject(request, content) -> Subject:
    if request.param == "fake":
        web = FakeWeb()
        web.hosts["fake:5000"] = content
        return Subject("fake:5000", web)
    host = request.getfixturevalue("debian")
    _copy(content, host)
    return Subject(host, None)


def _copy(content: FakeRegistry, host: str) -> None:
    """Push everything, manifests by digest and in the order in which they name each other."""
    with httpx.Client(base_url=f"http://{host}/v2/") as http:
        for (repository, digest), blob in content.blobs.items():
            upload = http.post(f"{repository}/blobs/uploads/").raise_for_status().headers["location"]
            http.put(httpx.URL(upload).copy_merge_params({"digest": digest}), content=blob).raise_for_status()
        names = {digest: tag for (_, tag), digest in content.tags.items()}
        for (repository, digest), (raw, media_type) in content.manifests.items():
            where = f"{repository}/manifests/{names.get(digest, digest)}"
            http.put(where, content=raw, headers={"Content-Type": media_type}).raise_for_status()


async def test_an_index_is_resolved_for_the_target(subject, content):
    found = await subject.client.resolve(subject.reference("lab/app:1"), Platform("linux", "arm64"))
    assert found.index_digest == content.tags["lab/app", "1"]
    assert str(found.config.platform) == "linux/arm64/v8"
    again = await subject.client.resolve(found.reference, AMD64)
    assert again.index_digest == found.index_digest
    assert again.manifest_digest != found.manifest_digest


async def test_a_blob_is_fetched_and_an_interrupted_one_goes_on(subject, content, tmp_path):
    found = await subject.client.resolve(subject.reference("lab/app:plain"), AMD64)
    (layer,) = found.manifest.layers
    blob = content.blobs["lab/app", layer.digest]
    for kept in (b"", blob[:1000]):
        (tmp_path / "layer.part").write_bytes(kept)
        with FileSink(tmp_path / "layer") as sink:
            await subject.client.fetch(found.reference, layer, sink)
        assert (tmp_path / "layer").read_bytes() == blob


async def test_what_is_not_there_is_told(subject, content):
    for name in ("lab/app:none", "lab/none:1", f"lab/app@sha256:{'0' * 64}"):
        with pytest.raises(ImageUnknown):
            await subject.client.resolve(subject.reference(name), AMD64)
    moved = subject.reference("lab/app:1").pinned(f"sha256:{'0' * 64}")
    with pytest.raises(TagMoved):
        await subject.client.resolve(moved, AMD64)


async def test_an_old_registry_lists_what_refers_to_an_image_under_a_tag(subject, content):
    digest = content.tags["lab/app", "1"]
    (found,) = await subject.client.referrers(subject.reference("lab/app:1"), digest)
    assert found.artifact_type == "text/note"
    assert await subject.client.referrers(subject.reference("lab/app:1"), f"sha256:{'0' * 64}") == ()
