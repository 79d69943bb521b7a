"""What the builder of an image says that it needs: labels or annotations ``berth.require.*`` and ``com.hooks.*``.

They are hints by strangers: what cannot be read is left out, and the record says so. Annotations stand over labels, as
they are nearer to the digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from images.needs import Declared, Evidence, Fabric, MpiMode, Source
from images.versions import version_of

PREFIX = "berth.require."
_HOOK = re.compile(r"com\.hooks\.([\w.-]+)\.enabled")
_SIZES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True, slots=True)
class Said:
    """arch, cpu_level: for which machine it is, "" where nothing is said; needs: the rest."""

    needs: Declared
    evidence: tuple[Evidence, ...] = ()
    arch: str = ""
    cpu_level: str = ""


def declared(labels: Mapping[str, str], annotations: Mapping[str, str]) -> Said:
    """What labels and annotations say together, with a line of evidence for each that speaks of needs."""
    facts: dict[str, Any] = {}
    evidence: list[Evidence] = []
    for key, text in sorted({**labels, **annotations}.items()):
        if key.startswith(PREFIX):
            fact, read = WORDS.get(key.removeprefix(PREFIX), ("", _nothing))
            try:
                facts[fact] = read(text.strip())
            except ValueError:
                evidence.append(Evidence("declared", Source.LABEL, f"{key}={text[:80]} is not understood"))
            else:
                evidence.append(Evidence(_NAMES.get(fact, f"declared.{fact}"), Source.LABEL, f"{key}={text[:80]}"))
        elif (hook := _HOOK.fullmatch(key)) and text.strip().lower() == "true":
            facts["hooks"] = (*facts.get("hooks", ()), hook[1])
            evidence.append(Evidence("declared.hooks", Source.LABEL, key))
    arch, cpu_level = facts.pop("arch", ""), facts.pop("cpu_level", "")
    return Said(Declared(**facts), tuple(evidence), arch, cpu_level)


# -- how each is read: ValueError for what makes no sense ----------------------------------------------------------


def _nothing(text: str) -> None:
    raise ValueError(text)


def _version(text: str) -> tuple[int, ...]:
    return version_of(text.removeprefix(">=").strip())


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.+-]{1,40}", text):
        raise ValueError(text)
    return text


def _cpu_level(text: str) -> str:
    """Levels are written with hyphens by compilers and with underscores by archspec."""
    return re.sub(r"^x86-64-v(?=[1-4]$)", "x86_64_v", _word(text))


def _mpi(text: str) -> str:
    """``mpich-abi>=12``, ``openmpi>=4`` or ``mpi-abi``."""
    plain = text.replace(" ", "")
    if not re.fullmatch(r"(mpich-abi|openmpi|mpi-abi)(>=[0-9.]{1,20})?", plain):
        raise ValueError(text)
    return plain


def _words(text: str) -> tuple[str, ...]:
    return tuple(map(_word, filter(None, re.split(r"[\s,]+", text))))


def _fabrics(text: str) -> tuple[Fabric, ...]:
    return tuple(map(Fabric, _words(text.lower())))


def _flag(text: str) -> bool:
    flags = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in flags:
        raise ValueError(text)
    return flags[text.lower()]


def _memory_bytes(text: str) -> int:
    """``16GiB``, ``16G`` or a plain number of bytes; units are powers of 1,024."""
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(iB|B)?", text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) << _SIZES[match[2]]


WORDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "arch": ("arch", _word),
    "cpu-level": ("cpu_level", _cpu_level),
    "cuda": ("cuda", _version),
    "gpu.arch": ("gpu_targets", _words),
    "mpi": ("mpi", _mpi),
    "mpi.mode": ("mpi_mode", MpiMode),
    "pmix": ("pmix", _version),
    "fabric": ("fabrics", _fabrics),
    "glibc-host-inject": ("inject_glibc", _flag),
    "kernel": ("kernel", _version),
    "memory": ("memory_bytes", _memory_bytes),
    "writable-root": ("writable_root", _flag),
    "network": ("network", _flag),
}
"""What stands after the prefix, the fact that it states, and how it is read."""

_NAMES = {"arch": "platform", "cpu_level": "isa.declared"}
"""Facts that stand elsewhere in the record."""
