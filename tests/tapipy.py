"""Environments that hold one release of tapipy each: it pins libraries that ours do not share."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

RELEASES = ("25.4.0", "1.6.0")
"""The newest, and the last one that sends every field of old."""


@pytest.fixture(params=RELEASES)
def tapipy_python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment that holds one release of tapipy."""
    return python_with(request.param)


def python_with(release: str) -> Path:
    """As ``tapipy_python``, for one release; the environment is made once, then used again."""
    home = REPOSITORY / ".cache" / f"tapipy-{release}"
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of this run want the same
        return _made(home, release)


def _made(home: Path, release: str) -> Path:
    python = home / "bin" / "python"
    known = [str(python), "-c", f"import importlib.metadata as m; assert m.version('tapipy') == '{release}'"]
    if not python.exists() or subprocess.run(known, check=False, timeout=60).returncode != 0:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=300)
        install = [str(python), "-m", "pip", "install", "--quiet", f"tapipy=={release}"]
        subprocess.run(install, check=True, timeout=900)
    return python
