"""Kubernetes under the contract of Backend: a real control plane, whose pods run on nodes that are not machines."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from tests.contract.test_backend import *  # noqa: F403 - the contract, on another subject
from tests.testbed.k8s_subject import KubernetesSubject, kubernetes_subject
from tests.testbed.kubernetes import own_namespace

pytestmark = pytest.mark.testbed

# Nothing can write to the volume of a node that is no machine.
del test_staging_puts_directories_and_files_in_place_and_may_be_repeated  # noqa: F821


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    with client(control_plane) as api:
        yield api


@pytest.fixture
def namespace(control_plane: ControlPlane, admin: httpx.Client) -> Iterator[str]:
    with own_namespace(control_plane, admin) as name:
        yield name


@pytest_asyncio.fixture
async def subject(control_plane: ControlPlane, admin: httpx.Client, namespace: str) -> AsyncIterator[KubernetesSubject]:
    async with kubernetes_subject(control_plane, admin, namespace) as subject:
        yield subject
