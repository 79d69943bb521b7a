"""What NVIDIA and the makers of MPI publish about which version runs with which, dated.

A version that is newer than a table is not in it: then nothing is known, and nothing is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from images.versions import at_least, compare

CUDA_TABLES_OF = "2026-09"
"""Month in which the CUDA tables were last compared with NVIDIA's compatibility guide."""

DRIVER_FLOORS: Mapping[int, tuple[int, ...]] = MappingProxyType({11: (450,), 12: (525,), 13: (580,)})
"""Oldest driver for a major version of CUDA, by minor-version compatibility (from CUDA 11 on)."""

OLD_DRIVER_FLOORS: Mapping[tuple[int, int], tuple[int, ...]] = MappingProxyType(
    {
        (7, 0): (346, 46),
        (7, 5): (352, 31),
        (8, 0): (375, 26),
        (9, 0): (384, 81),
        (9, 1): (390, 46),
        (9, 2): (396, 26),
        (10, 0): (410, 48),
        (10, 1): (418, 39),
        (10, 2): (440, 33),
    }
)
"""Before CUDA 11 each minor version had a floor of its own."""

DRIVER_CUDA: Mapping[int, tuple[int, int]] = MappingProxyType(
    {
        410: (10, 0),
        418: (10, 1),
        440: (10, 2),
        450: (11, 0),
        455: (11, 1),
        460: (11, 2),
        465: (11, 3),
        470: (11, 4),
        495: (11, 5),
        510: (11, 6),
        515: (11, 7),
        520: (11, 8),
        525: (12, 0),
        530: (12, 1),
        535: (12, 2),
        545: (12, 3),
        550: (12, 4),
        555: (12, 5),
        560: (12, 6),
        565: (12, 7),
        570: (12, 8),
        575: (12, 9),
        580: (13, 0),
        590: (13, 1),
    }
)
"""The CUDA that a driver branch brings itself."""

FORWARD_BRANCHES: Mapping[tuple[int, int], frozenset[int]] = MappingProxyType(
    {
        (11, 0): frozenset({418, 440}),
        (11, 4): frozenset({418, 440, 450, 460}),
        (11, 6): frozenset({418, 450, 470}),
        (11, 8): frozenset({450, 470, 510, 515}),
        (12, 0): frozenset({450, 470, 510, 515}),
        (12, 2): frozenset({450, 470, 525}),
        (12, 4): frozenset({470, 525, 535}),
        (12, 8): frozenset({470, 535, 550}),
        (13, 0): frozenset({535, 550, 570}),
    }
)
"""Driver branches that a compatibility library of this CUDA, or of one up to the next row, is made for."""

DROPPED_GPUS: Mapping[int, tuple[int, int]] = MappingProxyType({396: (3, 0), 495: (5, 0), 590: (7, 5)})
"""Least compute capability that drivers from a branch on support."""


OPEN_MPI_PMIX: Mapping[tuple[int, int], tuple[int, ...]] = MappingProxyType(
    {(2, 0): (1, 2), (3, 0): (2, 0), (3, 1): (2, 1), (4, 0): (3, 1), (4, 1): (3, 2), (5, 0): (4, 2)}
)
"""The PMIx that a release of Open MPI brings inside its own libraries, where no library of its own stands beside."""

PMIX_OLDEST_CLIENT = (2, 1)
PMIX_OLDEST_SERVER = (3, 2)
"""Servers take clients from 2.1 on; clients take servers from 3.2 on (OpenPMIx, docs/versions)."""


class Grade(StrEnum):
    """What NVIDIA sells a GPU for; forward compatibility depends on it."""

    DATA_CENTRE = "data-centre"
    PROFESSIONAL = "professional"  # some of these are listed for forward compatibility
    CONSUMER = "consumer"


_GRADES: tuple[tuple[str, Grade], ...] = (
    ("geforce", Grade.CONSUMER),
    ("titan", Grade.CONSUMER),
    ("tesla", Grade.DATA_CENTRE),
    ("orin", Grade.DATA_CENTRE),
    ("xavier", Grade.DATA_CENTRE),
    ("thor", Grade.DATA_CENTRE),
    ("quadro", Grade.PROFESSIONAL),
    ("rtx", Grade.PROFESSIONAL),
)
_DATA_CENTRE_SERIES = re.compile(
    r"\b(K[248]0|M(4|10|40|60)|P(4|6|40|100)|V100S?|T4G?|A(2|10G?|16|30|40|100X?|800)|L(2|4|20|40S?)"
    r"|H(20|100|200|800)|B[123]00|G[HB][23]00)\b"
)


def gpu_grade(name: str) -> Grade | None:
    """What a GPU is sold for, by the name that the driver gives it; None where the name tells nothing."""
    words = name.lower()
    for word, grade in _GRADES:
        if word in words:
            return grade
    return Grade.DATA_CENTRE if _DATA_CENTRE_SERIES.search(name.upper()) else None


def driver_floor(runtime: tuple[int, ...]) -> tuple[int, ...] | None:
    """Oldest driver on which a CUDA runtime works without a compatibility library; None where the tables end."""
    major, minor = (*runtime, 0)[:2]
    return DRIVER_FLOORS.get(major) or OLD_DRIVER_FLOORS.get((major, minor))


def driver_cuda(driver: tuple[int, ...]) -> tuple[int, int] | None:
    """The CUDA that a driver brings: of its branch, or of the newest older branch within the table."""
    branch = driver[0]
    older = [each for each in DRIVER_CUDA if each <= branch]
    return DRIVER_CUDA[max(older)] if older and branch <= max(DRIVER_CUDA) + 9 else None


def forward_branches(cuda: tuple[int, ...]) -> frozenset[int]:
    """Driver branches on which a compatibility library of this CUDA is made to work; empty where nothing is known."""
    rows = [row for row in FORWARD_BRANCHES if at_least(cuda, row)]
    newest = max(rows, default=None)
    return FORWARD_BRANCHES[newest] if newest is not None and newest[0] == cuda[0] else frozenset()


def open_mpi_pmix(version: tuple[int, ...]) -> tuple[int, ...] | None:
    """The PMIx inside an Open MPI of this version; None where the table does not tell."""
    rows = [row for row in OPEN_MPI_PMIX if at_least(version, row)]
    return OPEN_MPI_PMIX[max(rows)] if rows else None


def drops_gpu(driver: tuple[int, ...], compute_capability: tuple[int, ...]) -> bool:
    """Whether a driver no longer supports a GPU of this compute capability."""
    floors = [least for branch, least in DROPPED_GPUS.items() if driver[0] >= branch]
    return bool(floors) and compare(compute_capability, max(floors)) < 0
