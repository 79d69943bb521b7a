"""The values of sbatch's options. Every reader raises ValueError for what it cannot mean."""

from __future__ import annotations

import re

from berth.units import parse_memory_mib


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"'{text}' is no whole number of at least 1")
    return int(text)


def node_count(text: str) -> int:
    """One number of nodes."""
    if re.fullmatch(r"\d+[kK]?-\d+[kK]?|\d+:.*", text):
        raise ValueError(f"'{text}' is a range; name one number of nodes")
    return positive(text)


def memory_mib(text: str) -> int:
    """A size in MiB."""
    mib = parse_memory_mib(text)
    if mib < 1:
        raise ValueError(f"'{text}' means all memory of a node; name a size")
    return mib


def gpu_count(text: str) -> tuple[str, int]:
    """``a100:2`` as ``("a100:", 2)``, ``2`` as ``("", 2)``."""
    kind, colon, count = text.rpartition(":")
    return kind + colon, positive(count)


def gpus_of_gres(text: str) -> tuple[str, int]:
    """The GPUs among generic resources: ``gpu``, ``gpu:2``, ``gpu:a100:2``; ``("", 0)`` when there are none."""
    found = [entry for entry in text.split(",") if entry == "gpu" or entry.startswith("gpu:")]
    return gpu_count(found[-1].removeprefix("gpu").removeprefix(":") or "1") if found else ("", 0)


def only_one(text: str) -> str:
    """A name that stands alone."""
    if "," in text:
        raise ValueError(f"'{text}' names several; name one, or none and Berth chooses")
    return text


_CONDITIONS = {"afterok": "ok", "afternotok": "notok", "afterany": "any"}


def dependencies(text: str) -> list[dict[str, str]]:
    """``afterok:12:13,afterany:14`` as a job file's ``after``. ValueError for what Berth has no word for."""
    found = []
    for part in text.split(","):
        kind, *jobs = part.split(":")
        if kind not in _CONDITIONS or not jobs or "?" in text:
            raise ValueError(f"'{part}' is not understood; afterok, afternotok and afterany of jobs are")
        for job in jobs:
            if not re.fullmatch(r"[0-9A-Za-z-]+", job):
                raise ValueError(f"'{job}' is no job")
            found.append({"job": job, "condition": _CONDITIONS[kind]})
    return found


_NUMBERS = re.compile(r"[-_.]?%\d*[jJAaNnstu]")


def file_name(text: str, job_name: str) -> str:
    """A log file's name with sbatch's ``%`` patterns replaced: ``%x`` is the job's name, and what tells jobs, tasks and
    nodes apart is left out, since every job has an output directory of its own. ValueError for an unknown pattern."""
    plain = _NUMBERS.sub("", text.replace("%x", job_name))
    if "%" in plain.replace("%%", ""):
        raise ValueError(f"'{text}' holds a pattern that means nothing here; %x and %j do")
    return plain.replace("%%", "%") or "output"


def split_input(text: str) -> tuple[str, str | None]:
    """``URL`` or ``URL:NAME`` as URL and name; the colons of the URL itself are none of it."""
    scheme, found, rest = text.partition("://")
    head, colon, name = rest.rpartition(":")
    if not found or not colon or "/" in name or (name.isdecimal() and "/" not in head):
        return text, None
    return f"{scheme}://{head}", name
