"""The artifact of Node Feature Discovery: what we write is read again, and what others write is never a "no"."""

from __future__ import annotations

import pytest
import yaml

from images.needs import Declared, Fabric, IsaNeed, Needs, Source
from images.nfd import Artifact, artifact_of, dump, load, with_artifact
from scheduler.model.errors import SpecInvalid

BARE = Needs(manifest_digest="sha256:" + "0" * 64)

ARTIFACTS = {
    "nothing": Artifact(),
    "a level": Artifact(cpu_level="x86_64_v3"),
    "a kernel": Artifact(kernel=(5, 10)),
    "a kernel's first number": Artifact(kernel=(6, 0)),
    "networks": Artifact(fabrics=(Fabric.VERBS, Fabric.EFA)),
    "a GPU": Artifact(nvidia_gpu=True),
    "all": Artifact(cpu_level="x86_64_v2", kernel=(4, 18), fabrics=(Fabric.CXI,), nvidia_gpu=True),
}


@pytest.mark.parametrize("artifact", ARTIFACTS.values(), ids=ARTIFACTS)
def test_what_is_written_is_read_again(artifact):
    assert load(dump(artifact)) == artifact


def test_needs_become_an_artifact_and_come_back():
    said = Declared(kernel=(5, 10), fabrics=(Fabric.VERBS,), cuda=(12, 2))
    artifact = load(dump(artifact_of(Needs(manifest_digest="", isa=IsaNeed(declared="x86_64_v3"), declared=said))))
    assert artifact == Artifact(cpu_level="x86_64_v3", kernel=(5, 10), fabrics=(Fabric.VERBS,), nvidia_gpu=True)
    needs = with_artifact(BARE, artifact)
    assert needs.isa.declared == "x86_64_v3"
    assert (needs.declared.kernel, needs.declared.fabrics) == ((5, 10), (Fabric.VERBS,))
    assert {each.source for each in needs.evidence} == {Source.ARTIFACT}


def test_what_was_proven_or_declared_stands_over_an_artifact():
    needs = Needs(manifest_digest="", isa=IsaNeed(declared="zen3"), declared=Declared(kernel=(6, 1)))
    assert with_artifact(needs, Artifact(cpu_level="x86_64_v2", kernel=(4, 0))) == needs


FOREIGN = """
version: v1alpha1
compatibilities:
- description: "My image requirements"
  rules:
  - name: "kernel and cpu"
    matchFeatures:
    - feature: kernel.loadedmodule
      matchExpressions:
        vfio-pci: {op: Exists}
    - feature: cpu.model
      matchExpressions:
        vendor_id: {op: In, value: ["Intel", "AMD"]}
  - name: "verbs"
    labels: {"vendor.example/verbs": "true"}
    matchFeatures:
    - feature: kernel.loadedmodule
      matchExpressions: {ib_uverbs: {op: Exists}}
"""


def test_a_rule_that_is_not_understood_survives_as_unknown():
    artifact = load(FOREIGN)
    assert artifact.fabrics == (Fabric.VERBS,)
    assert [rule["name"] for rule in artifact.unknown] == ["kernel and cpu"]
    assert load(dump(artifact)) == artifact
    needs = with_artifact(BARE, artifact)
    assert [(each.fact, each.detail) for each in needs.evidence if each.fact == "unknown"] == [
        ("unknown", "kernel and cpu")
    ]
    assert (needs.isa, needs.declared) == (BARE.isa, Declared(fabrics=(Fabric.VERBS,)))


@pytest.mark.parametrize("holder", [
    lambda rules: rules,
    lambda rules: {"rules": rules},
    lambda rules: {"featureGroupRules": rules},
    lambda rules: {"kind": "NodeFeatureRule", "spec": {"rules": rules}},
    lambda rules: {"kind": "NodeFeatureGroup", "spec": {"featureGroupRules": rules}},
], ids=["a list", "NodeFeatureRule", "NodeFeatureGroup", "a whole rule", "a whole group"])  # fmt: skip
def test_items_of_rules_and_of_groups_are_read(holder):
    document = yaml.safe_load(FOREIGN)
    document["compatibilities"][0]["rules"] = holder(document["compatibilities"][0]["rules"])
    assert load(yaml.safe_dump(document)) == load(FOREIGN)


def test_of_several_sets_none_is_a_need():
    document = yaml.safe_load(dump(ARTIFACTS["all"]))
    document["compatibilities"] *= 2
    text = yaml.dump(document, Dumper=type("Flat", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True}))
    artifact = load(text)
    assert artifact == Artifact(unknown=tuple(document["compatibilities"]))
    assert with_artifact(BARE, artifact).isa == BARE.isa


@pytest.mark.parametrize(
    "change",
    [{"op": "NotIn", "value": ["x"]}, {"op": "DoesNotExist"}, {"op": "Exists", "type": "bool"}, ["Exists"], "x", None],
)
def test_the_same_feature_in_another_sense_is_unknown(change):
    document = yaml.safe_load(dump(ARTIFACTS["a level"]))
    document["compatibilities"][0]["rules"][0]["matchFeatures"][0]["matchExpressions"]["AVX2"] = change
    artifact = load(yaml.safe_dump(document))
    assert artifact.cpu_level is None
    assert len(artifact.unknown) == 1


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "artifact.version"),
        ("version: v2", "artifact.version"),
        ("version: v1alpha1", "artifact.compatibilities"),
        ("version: v1alpha1\ncompatibilities: [1]", "artifact.compatibilities"),
        ("version: v1alpha1\ncompatibilities: [{rules: 1}]", "artifact.compatibilities.rules"),
        ("version: v1alpha1\ncompatibilities: [{rules: [1]}]", "artifact.compatibilities.rules"),
        ("a: &a [x, x]\nb: [*a, *a]", "artifact"),
        ("a: !!python/object/apply:os.getcwd []", "artifact"),
        ("[" * 5000, "artifact"),
        ("x" * (1 << 21), "artifact"),
        ("{unclosed", "artifact"),
    ],
)
def test_what_is_no_artifact_is_refused_by_name(text, field):
    with pytest.raises(SpecInvalid) as refused:
        load(text)
    assert [problem.field for problem in refused.value.problems] == [field]
