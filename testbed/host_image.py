"""A small image made of this machine's own shell, and this machine as a system: for the demo without root."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from testbed.oci import write_layout

PROGRAMS = ("sh", "cat", "date", "env", "hostname", "id", "ls", "sleep", "uname")
CONFIG = {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/"}


def write(folder: Path) -> Path:
    """Write an OCI layout with the shell, a few programs and the libraries they need; returns ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    layer = _layer(programs, {library for program in programs for library in _libraries(program)})
    write_layout(folder, [layer], CONFIG)
    return folder


def local_system(system_id: str, work: Path) -> dict[str, Any]:
    """This machine as ``POST /v3/systems`` takes it. Root's jobs run as ``nobody``."""
    work.mkdir(parents=True, exist_ok=True)
    berth: dict[str, Any] = {"backend": "local"}
    if os.geteuid() == 0:
        berth["runAs"] = "nobody"
        shutil.chown(work, "nobody")
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "id": system_id,
        "description": socket.gethostname(),
        "systemType": "LINUX",
        "host": "localhost",
        "defaultAuthnMethod": "PKI_KEYS",
        "effectiveUserId": "${apiUserId}",
        "rootDir": str(work),
        "canExec": True,
        "canRunBatch": False,
        "jobRuntimes": [{"runtimeType": "SINGULARITY"}],
        "jobWorkingDir": "berth",
        "notes": {"berth": berth, "cores": os.cpu_count(), "memoryMiB": memory_mib},
    }


def _libraries(program: Path) -> list[Path]:
    """What the dynamic linker would load for it; none for a static program."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=10, check=False).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def _layer(programs: list[Path], libraries: set[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for source, name in [*((p, f"bin/{p.name}") for p in programs), *((p, str(p)[1:]) for p in sorted(libraries))]:
            content = source.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
