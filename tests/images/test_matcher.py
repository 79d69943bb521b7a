"""The matcher's verdicts: named images on named nodes, and what must hold for every image and every node.

In the tables a cell is the verdict (unk: unknown, fix: fixable) with the rule that decided; ``!`` marks a warning.
"""

from __future__ import annotations

import pytest

from images.findings import MatchPolicy
from images.matcher import match
from tests.images.fleet import CPU_HOSTS, CPU_IMAGES, CUDA_IMAGES, GPU_HOSTS, MPI_HOSTS, MPI_IMAGES

GPU_TABLE = """
            k80-450 v100-470 v100-495 a100-535 h100-550 h100-580 b200-590 3090-470 a6000-470 driver? no-gpu  gpus?
cuda-9.0        yes      yes      yes      yes      yes      yes      yes      yes       yes  unk:R5   yes! unk:R5
cuda-10.2       yes      yes      yes      yes      yes      yes      yes      yes       yes  unk:R5   yes! unk:R5
cuda-11.8      yes!     yes!     yes!      yes      yes      yes    no:R8     yes!      yes!  unk:R5   yes! unk:R5
11.8-compat    yes!     yes!     yes!      yes      yes      yes      yes     yes!      yes!  unk:R5   yes! unk:R5
cuda-12.4     no:R8    no:R5    no:R5     yes!      yes      yes      yes    no:R5     no:R5  unk:R5   yes! unk:R5
12.4-compat   no:R8   fix:R7   unk:R7     yes!      yes      yes      yes    no:R5    unk:R7  unk:R5   yes! unk:R5
12.4-ptx      no:R8    no:R5    no:R5   unk:R6      yes      yes      yes    no:R5     no:R5  unk:R5   yes! unk:R5
12.8-wheel    no:R8    no:R8    no:R8     yes!     yes!      yes      yes    no:R5     no:R5  unk:R5   yes! unk:R5
13.0-compat   no:R8    no:R8    no:R8   fix:R7   fix:R7      yes      yes    no:R5    unk:R7  unk:R5   yes! unk:R5
cuda-14.0    unk:R5   unk:R5   unk:R5   unk:R5   unk:R5   unk:R5   unk:R5   unk:R5    unk:R5  unk:R5   yes! unk:R5
sm_90a        no:R8    no:R8    no:R8    no:R8      yes      yes    no:R8    no:R8     no:R8   no:R8   yes! unk:R5
env-only     unk:R5   unk:R5   unk:R5     yes!      yes      yes      yes   unk:R5    unk:R5  unk:R5   yes! unk:R5
code?         no:R5    no:R5    no:R5     yes!      yes      yes      yes    no:R5     no:R5  unk:R5   yes! unk:R5
no-cuda         yes      yes      yes      yes      yes      yes      yes      yes       yes     yes    yes    yes
"""

CPU_TABLE = """
               icelake     zen3 masked-vm  centos7 arm-4k arm-64k no-userns no-fuse gzip-sif   closed unprobed
debian             yes      yes       yes     yes!  no:R1   no:R1    no:R15 fix:R15  fix:R15      yes   unk:R1
alpine             yes      yes       yes      yes  no:R1   no:R1    no:R15 fix:R15  fix:R15      yes   unk:R1
arm64            no:R1    no:R1     no:R1    no:R1    yes   no:R4     no:R1   no:R1    no:R1    no:R1   unk:R1
arm64-64k        no:R1    no:R1     no:R1    no:R1    yes     yes     no:R1   no:R1    no:R1    no:R1   unk:R1
windows          no:R1    no:R1     no:R1    no:R1  no:R1   no:R1     no:R1   no:R1    no:R1    no:R1    no:R1
says-nothing    unk:R1   unk:R1    unk:R1   unk:R1 unk:R1  unk:R1    no:R15  unk:R1   unk:R1   unk:R1   unk:R1
v3-noted           yes      yes       yes    no:R2  no:R1   no:R1    no:R15 fix:R15  fix:R15      yes   unk:R1
v4-noted           yes    no:R2     no:R2    no:R2  no:R1   no:R1    no:R15 fix:R15  fix:R15      yes   unk:R1
zen3-declared   unk:R3      yes    unk:R3    no:R3  no:R1   no:R1    no:R15  unk:R3   unk:R3   unk:R3   unk:R1
neoverse-v1      no:R1    no:R1     no:R1    no:R1  no:R3   no:R4     no:R1   no:R1    no:R1    no:R1   unk:R1
kernel-5.14        yes      yes       yes   no:R14  no:R1   no:R1    no:R15 fix:R15  fix:R15      yes   unk:R1
big-memory      no:mem   no:mem    no:mem   no:mem  no:R1   no:R1    no:mem  no:mem   no:mem   no:mem   unk:R1
writes-root   fix:root fix:root  fix:root fix:root  no:R1   no:R1    no:R15 fix:R15  fix:R15 fix:root   unk:R1
needs-network      yes      yes       yes     yes!  no:R1   no:R1    no:R15 fix:R15  fix:R15   no:net   unk:R1
20-gib             yes      yes       yes     yes!  no:R1   no:R1    no:R15 fix:R15  fix:R15   no:R18   unk:R1
"""

MPI_TABLE = """
                  pmix4    pmi2   ompi4   ompi5    cray new-libc libc-hook  wi4mpi unprobed
ompi-4.1            yes unk:R12     yes     yes unk:R12  unk:R12   unk:R12 fix:R11  unk:R12
ompi-5.0            yes  no:R12  no:R12     yes  no:R12   no:R12    no:R12 fix:R11  unk:R12
ompi-2.0         no:R12 unk:R12 unk:R12  no:R12 unk:R12  unk:R12   unk:R12 fix:R11   unk:R9
mpich-debian       yes!    yes! unk:R12 unk:R12     yes  unk:R12   fix:R13     yes   unk:R9
intel-mpi           yes     yes unk:R12 unk:R12     yes  unk:R12   fix:R13     yes  unk:R12
mpich-13           yes!    yes! unk:R12 unk:R12    yes!  unk:R12   unk:R12 unk:R12   unk:R9
mpi-5-abi       unk:R12 unk:R12 unk:R12 unk:R12 unk:R12  unk:R12   unk:R12 unk:R12   unk:R9
both             unk:R9 unk:R12  unk:R9  unk:R9  unk:R9  unk:R12    unk:R9  unk:R9   unk:R9
both-uses-mpich    yes!    yes! unk:R12 unk:R12     yes  unk:R12   fix:R13     yes   unk:R9
alpine-mpich       yes!    yes! unk:R12 unk:R12    yes!  unk:R12   unk:R12 unk:R12   unk:R9
no-mpi             yes!    yes!    yes!    yes!    yes!     yes!      yes!    yes!     yes!
not-looked       unk:R9  unk:R9  unk:R9  unk:R9  unk:R9   unk:R9    unk:R9  unk:R9   unk:R9
declared           yes!    yes! unk:R12 unk:R12     yes  unk:R12   fix:R13     yes   unk:R9
"""

WORDS = {"yes": "yes", "fixable": "fix", "unknown": "unk", "no": "no"}
RULES = {"mem": "memory", "net": "network"}
ACROSS_NODES = MatchPolicy(wants_mpi=True, nodes=2)


def cells(table, images, hosts, policy):
    header, *rows = (line.split() for line in table.strip("\n").splitlines())
    assert header == list(hosts)
    assert [row[0] for row in rows] == list(images)
    for name, *row in rows:
        for host, cell in zip(header, row, strict=True):
            yield pytest.param(images[name], hosts[host], policy, cell, id=f"{name}-on-{host}")


CASES = [
    *cells(GPU_TABLE, CUDA_IMAGES, GPU_HOSTS, MatchPolicy()),
    *cells(CPU_TABLE, CPU_IMAGES, CPU_HOSTS, MatchPolicy()),
    *cells(MPI_TABLE, MPI_IMAGES, MPI_HOSTS, ACROSS_NODES),
]


@pytest.mark.parametrize(("needs", "host", "policy", "cell"), CASES)
def test_the_verdict_and_the_rule_that_decides(needs, host, policy, cell):
    found = match(needs, host, policy)
    word, _, rule = cell.rstrip("!").partition(":")
    assert WORDS[found.verdict.fit] == word, found.findings
    assert bool(found.verdict.warnings) or not cell.endswith("!")
    if rule:
        deciding = next(each for each in found.findings if each.fit is found.verdict.fit)
        assert deciding.rule == RULES.get(rule, rule)
        assert deciding.reason
        assert found.verdict.reason == deciding.reason
    if word == "fix":
        assert found.verdict.fix


def test_there_are_enough_cases():
    assert len(CASES) >= 150
