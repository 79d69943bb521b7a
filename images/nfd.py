"""Needs as the image-compatibility artifact of Node Feature Discovery, in and out. Experimental, as its format is.

The artifact speaks of what a node has: CPU features, kernel, modules, devices. Rules in the form that we write
ourselves become needs. All others are kept as they came, to be written again, and count as unknown: nobody's rule
becomes a "no" because we do not understand it.

Source: https://kubernetes-sigs.github.io/node-feature-discovery/v0.20/usage/image-compatibility.html; up to v0.17 rules
were items of a NodeFeatureRule, since then of a NodeFeatureGroup, and both are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from images.needs import Evidence, Fabric, Needs, Source
from images.versions import Version
from scheduler.model.errors import SpecInvalid

ARTIFACT_TYPE = "application/vnd.nfd.image-compatibility.v1alpha1"
LAYER_TYPE = "application/vnd.nfd.image-compatibility.spec.v1alpha1+yaml"
VERSION = "v1alpha1"

MAX_BYTES = 1 << 20

CPU_FLAGS: Mapping[str, tuple[str, ...]] = {
    "x86_64_v2": ("CX16", "POPCNT", "SSE42", "SSSE3"),
    "x86_64_v3": ("AVX2", "BMI2", "F16C", "FMA3", "MOVBE"),
    "x86_64_v4": ("AVX512BW", "AVX512CD", "AVX512DQ", "AVX512F", "AVX512VL"),
}
"""What tells a level from the one below, in the names that NFD gives to CPUID bits."""

FABRIC_MODULES: Mapping[Fabric, str] = {
    Fabric.VERBS: "ib_uverbs",
    Fabric.CXI: "cxi_ss1",
    Fabric.EFA: "efa",
    Fabric.PSM2: "hfi1",
}
"""Kernel modules without which a network cannot be driven. OPX needs the one of PSM2."""

NVIDIA, DISPLAYS = "10de", ("0300", "0302")
"""PCI vendor, and the classes of its GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What one artifact asks of a node. unknown: rules, or whole documents, that we cannot read, as they came."""

    cpu_level: str | None = None
    kernel: Version | None = None
    fabrics: tuple[Fabric, ...] = ()
    nvidia_gpu: bool = False
    unknown: tuple[Mapping[str, Any], ...] = ()


def artifact_of(needs: Needs) -> Artifact:
    """What can be said of ``needs`` in the words of the artifact."""
    level = needs.isa.proven if needs.isa.proven in CPU_FLAGS else needs.isa.declared
    targets = needs.declared.gpu_targets or ()
    return Artifact(
        cpu_level=level if level in CPU_FLAGS else None,
        kernel=needs.declared.kernel,
        fabrics=tuple(fabric for fabric in needs.declared.fabrics or () if fabric in FABRIC_MODULES),
        nvidia_gpu=needs.declared.cuda is not None or any(not target.startswith("gfx") for target in targets),
    )


def with_artifact(needs: Needs, artifact: Artifact) -> Needs:
    """``needs`` with what an artifact adds; what its builder declared otherwise stays."""
    said, isa = needs.declared, needs.isa
    added = {
        "isa.declared": artifact.cpu_level if isa.declared is None else None,
        "declared.kernel": artifact.kernel if said.kernel is None else None,
        "declared.fabrics": artifact.fabrics if said.fabrics is None else None,
    }
    facts = [Evidence(fact, Source.ARTIFACT, ARTIFACT_TYPE) for fact, value in added.items() if value]
    if artifact.nvidia_gpu:
        facts.append(Evidence("cuda", Source.ARTIFACT, "asks for a GPU of NVIDIA"))
    unknown = [Evidence("unknown", Source.ARTIFACT, _name(rule)) for rule in artifact.unknown]
    return replace(
        needs,
        isa=replace(isa, declared=isa.declared or artifact.cpu_level),
        declared=replace(
            said, kernel=said.kernel or artifact.kernel, fabrics=said.fabrics or artifact.fabrics or said.fabrics
        ),
        evidence=(*needs.evidence, *facts, *unknown),
    )


# -- out --------------------------------------------------------------------------------------------------------------


def dump(artifact: Artifact) -> str:
    """The artifact as the YAML that its layer holds."""
    whole = [dict(each) for each in artifact.unknown if "rules" in each]
    rules = [*_rules(artifact), *(dict(each) for each in artifact.unknown if "rules" not in each)]
    ours = [{"description": "needs of this image, by Berth", "rules": rules}] if rules or not whole else []
    text: str = yaml.safe_dump({"version": VERSION, "compatibilities": [*ours, *whole]}, sort_keys=False)
    return text


def _rules(artifact: Artifact) -> Iterator[dict[str, Any]]:
    if artifact.cpu_level:
        yield _all(f"cpu {artifact.cpu_level}", _cpu(artifact.cpu_level))
    if artifact.kernel:
        yield {"name": f"kernel {'.'.join(map(str, artifact.kernel))}", "matchAny": _kernel(artifact.kernel)}
    for fabric in artifact.fabrics:
        yield _all(f"fabric {fabric}", _module(fabric))
    if artifact.nvidia_gpu:
        yield _all("gpu nvidia", _gpu())


def _all(name: str, term: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "matchFeatures": [term]}


def _cpu(level: str) -> dict[str, Any]:
    return {"feature": "cpu.cpuid", "matchExpressions": {flag: {"op": "Exists"} for flag in CPU_FLAGS[level]}}


def _kernel(version: Version) -> list[dict[str, Any]]:
    """Newer in its first number, or the same in it and at least as new in the second."""
    major, minor = (*version, 0)[:2]
    newer = {"major": {"op": "Gt", "value": [str(major)]}}
    same = {"major": {"op": "In", "value": [str(major)]}, "minor": {"op": "Gt", "value": [str(minor - 1)]}}
    return [{"matchFeatures": [{"feature": "kernel.version", "matchExpressions": each}]} for each in (newer, same)]


def _module(fabric: Fabric) -> dict[str, Any]:
    return {"feature": "kernel.loadedmodule", "matchExpressions": {FABRIC_MODULES[fabric]: {"op": "Exists"}}}


def _gpu() -> dict[str, Any]:
    vendor, kind = {"op": "In", "value": [NVIDIA]}, {"op": "In", "value": list(DISPLAYS)}
    return {"feature": "pci.device", "matchExpressions": {"vendor": vendor, "class": kind}}


# -- in ---------------------------------------------------------------------------------------------------------------


def load(text: str | bytes) -> Artifact:
    """What an artifact asks for; SpecInvalid when it is none.

    One with several sets of rules leaves the choice between them to whoever runs it, so that none of them is a need.
    """
    sets = _sets(_document(text))
    if len(sets) != 1:
        return Artifact(unknown=tuple(sets))
    artifact, unknown = Artifact(), []
    for rule in _items(sets[0]["rules"]):
        known = _read(rule)
        if known is None:
            unknown.append(rule)
        else:
            artifact = _both(artifact, known)
    return replace(artifact, unknown=tuple(unknown))


def _document(text: str | bytes) -> Mapping[str, Any]:
    if len(text) > MAX_BYTES:
        raise SpecInvalid.of("artifact", f"is longer than {MAX_BYTES} bytes", "attach one that holds needs alone")
    try:
        document = yaml.load(text, _Plain)  # noqa: S506 a SafeLoader, and narrower
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecInvalid.of("artifact", f"is no plain YAML: {str(error)[:200]}", "write it without aliases") from None
    if not isinstance(document, Mapping) or document.get("version") != VERSION:
        raise SpecInvalid.of("artifact.version", f"is not {VERSION}", "attach one in this version")
    return document


def _sets(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    sets = document.get("compatibilities")
    if not isinstance(sets, list) or not all(isinstance(each, dict) and "rules" in each for each in sets):
        raise SpecInvalid.of("artifact.compatibilities", "is not a list of sets with rules", "give each set its rules")
    return sets


def _items(rules: Any) -> list[dict[str, Any]]:
    """The rules of a set: a list, or the object or the specification that holds one."""
    for key in ("spec", "rules", "featureGroupRules"):
        if isinstance(rules, Mapping) and key in rules:
            rules = rules[key]
    if not isinstance(rules, list) or not all(isinstance(each, dict) for each in rules):
        raise SpecInvalid.of("artifact.compatibilities.rules", "is not a list of rules", "give a list of objects")
    return rules


def _read(rule: Mapping[str, Any]) -> Artifact | None:
    """What a rule asks for; None unless it is one that we would write, whatever it is called and labels it sets."""
    asked = {key: value for key, value in rule.items() if key not in _SPEAKS_OF_NODES}
    for candidate in _CANDIDATES:
        if any(asked == {key: value for key, value in own.items() if key != "name"} for own in _rules(candidate)):
            return candidate
    return _read_kernel(asked)


_SPEAKS_OF_NODES = ("name", "labels", "labelsTemplate", "annotations", "taints", "extendedResources")
"""What a NodeFeatureRule does to a node that it matches: nothing that an image needs."""

_CANDIDATES: Sequence[Artifact] = (
    *(Artifact(cpu_level=level) for level in CPU_FLAGS),
    *(Artifact(fabrics=(fabric,)) for fabric in FABRIC_MODULES),
    Artifact(nvidia_gpu=True),
)


def _read_kernel(asked: Mapping[str, Any]) -> Artifact | None:
    try:
        expressions = asked["matchAny"][1]["matchFeatures"][0]["matchExpressions"]
        version = int(expressions["major"]["value"][0]), int(expressions["minor"]["value"][0]) + 1
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return Artifact(kernel=version) if asked == {"matchAny": _kernel(version)} else None


def _both(one: Artifact, other: Artifact) -> Artifact:
    """All that either asks for."""
    return Artifact(
        cpu_level=max(one.cpu_level or "", other.cpu_level or "") or None,
        kernel=max(one.kernel or (), other.kernel or ()) or None,
        fabrics=(*one.fabrics, *(fabric for fabric in other.fabrics if fabric not in one.fabrics)),
        nvidia_gpu=one.nvidia_gpu or other.nvidia_gpu,
    )


def _name(rule: Mapping[str, Any]) -> str:
    return str(rule.get("name") or rule.get("description") or "a rule without a name")[:200]


class _Plain(yaml.SafeLoader):
    """YAML without aliases, by which a few lines grow into more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias")
        return super().compose_node(parent, index)
