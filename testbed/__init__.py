"""A real throw-away Slurm cluster on one Linux machine, for tests, demos and benchmarks. See docs/testbed.md."""

from testbed.cluster import Cluster
from testbed.host import TestbedError
from testbed.spec import Spec

__all__ = ["Cluster", "Spec", "TestbedError"]
