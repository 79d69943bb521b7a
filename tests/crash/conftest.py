"""The campaign has a real cluster of its own: a controller that was killed leaves nodes drained."""

import pytest

from testbed.cluster import Cluster


@pytest.fixture(scope="module")
def cluster(rough_cluster: Cluster) -> Cluster:
    return rough_cluster
