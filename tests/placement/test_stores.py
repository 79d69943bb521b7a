"""What the stores of systems tell of images: where they lie, and how fast others came there."""

from __future__ import annotations

from dataclasses import replace

from placement.engine import place
from placement.problem import Stores
from placement.stores import PRESENT, brought
from scheduler.model.images import PinnedImage
from tests.placement.worlds import NOW, ask, cluster, problem, snapshot, view

DIGEST = "sha256:" + "1" * 64
IMAGE = PinnedImage(
    name="docker://a/b:1",
    reference=f"docker://a/b@{DIGEST}",
    manifest_digest=DIGEST,
    index_digest=None,
    download_bytes=2 * 10**9,
    resolved_at=NOW,
)
MINE = replace(ask(), image=IMAGE)


def there(stores: Stores | None, name: str = "alder"):
    return replace(view(cluster(name), snapshot()), stores=stores)


def owner() -> str:
    return there(None).system.credential_user(MINE.owner)


def test_an_image_in_the_store_of_the_jobs_login_is_there():
    assert brought(MINE, there(Stores(present=frozenset({(owner(), DIGEST)})))) == PRESENT
    assert brought(MINE, there(Stores(present=frozenset({("another", DIGEST)})))) is None
    assert brought(MINE, there(Stores(present=frozenset({(owner(), "sha256:" + "2" * 64)})))) is None


def test_an_image_takes_as_long_as_those_before_it_by_its_bytes():
    found = brought(MINE, there(Stores(paces_bytes_per_s=(1e8, 2e8, 4e7))))
    assert (found.p50_s, found.p90_s) == (20, 50)
    assert found.source == "as 3 images came there before, at 100 MB/s"


def test_what_is_small_still_takes_a_moment():
    tiny = replace(MINE, image=replace(IMAGE, download_bytes=1))
    assert brought(tiny, there(Stores(paces_bytes_per_s=(1e8,) * 3))).p50_s == 1


def test_where_nothing_is_kept_or_known_first_uses_tell():
    assert brought(MINE, there(None)) is None
    assert brought(MINE, there(Stores(paces_bytes_per_s=(1e8, 1e8)))) is None
    assert brought(ask(), there(Stores(paces_bytes_per_s=(1e8,) * 3))) is None


def test_the_place_that_has_the_image_wins_between_equal_ones():
    far = there(Stores(paces_bytes_per_s=(1e6,) * 3))
    near = there(Stores(present=frozenset({(owner(), DIGEST)})), "birch")
    decision = place(problem(MINE, far, near)).decisions[MINE.job_uuid]
    assert decision.winner.system_id == "birch"
    assert decision.winner.staging.source == PRESENT.source


def test_jobs_whose_names_mean_other_images_do_not_expect_the_same():
    near = there(Stores(present=frozenset({(owner(), DIGEST)}), paces_bytes_per_s=(1e6,) * 3))
    moved = replace(MINE, job_uuid="job-2", image=replace(IMAGE, manifest_digest="sha256:" + "3" * 64))
    decisions = place(replace(problem(MINE, near), asks=(MINE, moved))).decisions
    assert decisions["job-2"].winner.staging.p50_s > decisions[MINE.job_uuid].winner.staging.p50_s
