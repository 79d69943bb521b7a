"""A fake server for every test that wants one, a configuration directory of its own, and the command in the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from berth.cli.root import app
from berth.client import Client
from berth.config import ConfigFile, Login
from typer.testing import CliRunner, Result

from tests.client.fake_berth import FakeBerth, serving

Berth = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's own configuration or environment."""
    for name in (
        "BERTH_URL",
        "BERTH_TOKEN",
        "BERTH_PASSWORD",
        "BERTH_NEW_PASSWORD",
        "BERTH_SYSTEM_PASSWORD",
        "BERTH_REGISTRY_PASSWORD",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake() -> FakeBerth:
    return FakeBerth()


@pytest.fixture
def url(fake: FakeBerth) -> Iterator[str]:
    with serving(fake) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client that is logged in as alice and never waits for long."""
    with Client(url) as client:
        client.login("alice", "secret")
        yield client


@pytest.fixture
def logged_in(url: str) -> str:
    """The stored login of alice."""
    with Client(url) as client:
        ConfigFile().remember(Login(url, "alice", client.login("alice", "secret")))
    return url


@pytest.fixture
def berth(logged_in: str) -> Berth:
    """Run a `berth` command as alice, in this process and without a terminal."""
    return lambda *words, **options: CliRunner().invoke(app, list(words), **options)
