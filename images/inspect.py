"""From what an image says of itself and what its files show to the record of its needs, each fact with its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from images.declared import declared
from images.needs import CudaNeeds, Evidence, IsaNeed, Needs, Source, StartCommand
from images.platforms import Platform
from images.shown import shown
from images.survey import Survey


def inspect(
    manifest_digest: str,
    *,
    platform: Platform | None = None,
    command: StartCommand | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    download_bytes: int | None = None,
    unpacked_bytes: int | None = None,
    survey: Survey | None = None,
) -> Needs:
    """The record of an image: of its manifest and configuration, and of its files where they were surveyed."""
    said = declared(labels or {}, annotations or {})
    command = command or StartCommand()
    if platform is None and said.arch:
        platform = Platform(os="linux", architecture=said.arch)
    cuda, cuda_evidence = _cuda_of_env(command.env)
    needs = Needs(
        manifest_digest=manifest_digest,
        platform=platform,
        download_bytes=download_bytes,
        unpacked_bytes=unpacked_bytes,
        command=command,
        labels=dict(labels or {}),
        isa=IsaNeed(declared=said.cpu_level or None),
        cuda=cuda,
        declared=said.needs,
        evidence=(*said.evidence, *cuda_evidence),
    )
    return needs if survey is None else shown(survey, needs)


def _cuda_of_env(env: Mapping[str, str]) -> tuple[CudaNeeds, Iterator[Evidence]]:
    """What the variables that NVIDIA's images set ask for."""
    requires = {name: text for name, text in sorted(env.items()) if name.startswith("NVIDIA_REQUIRE_")}
    disabled = env.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "t", "true")
    cuda = CudaNeeds(
        requires=requires,
        require_disabled=disabled,
        env_version=env.get("CUDA_VERSION"),
        visible_devices=env.get("NVIDIA_VISIBLE_DEVICES"),
    )
    facts = {
        **dict.fromkeys(requires, "cuda.requires"),
        "NVIDIA_DISABLE_REQUIRE": "cuda.require_disabled",
        "CUDA_VERSION": "cuda.env_version",
        "NVIDIA_VISIBLE_DEVICES": "cuda.visible_devices",
    }
    seen = {name: fact for name, fact in facts.items() if name in env}
    return cuda, (Evidence(fact, Source.ENV, f"{name}={env[name][:200]}") for name, fact in seen.items())
