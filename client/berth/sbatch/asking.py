"""What all options of a script and a command line ask for together, as a job file's fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from berth.errors import UsageError
from berth.sbatch.options import BY_LONG, How
from berth.sbatch.reading import Given
from berth.sbatch.values import (
    dependencies,
    file_name,
    gpu_count,
    gpus_of_gres,
    memory_mib,
    node_count,
    only_one,
    positive,
    split_input,
)
from berth.units import minutes_of

SEVERAL = frozenset({"env", "input"})
"""Options that may come several times; of any other the last one counts."""


class Asked:
    """All options together; the last of each counts."""

    def __init__(self, given: Iterable[Given], warnings: list[str], environ: Mapping[str, str]) -> None:
        self.last: dict[str, Given] = {}
        self.several: dict[str, list[Given]] = {name: [] for name in SEVERAL}
        self.warnings, self.environ = warnings, environ
        for one in given:
            self.last[one.option.long] = one
            if one.option.long in SEVERAL:
                self.several[one.option.long].append(one)

    def has(self, name: str) -> bool:
        return name in self.last

    def text(self, name: str) -> str | None:
        return self.last[name].value if name in self.last else None

    def read(self, name: str, reader: Callable[[str], Any], default: Any = None) -> Any:
        """An option's value through ``reader``; its ValueError becomes a UsageError that names option and place."""
        if name not in self.last:
            return default
        given = self.last[name]
        try:
            return reader(given.value)
        except ValueError as error:
            raise UsageError(f"{given.where}: --{name}: {error}") from None

    def job(self, script_name: str) -> dict[str, Any]:
        """The job file's content, without the command."""
        if not self.has("image"):
            fix = "add a line #BERTH image=docker://... to the script, or give --image"
            raise UsageError("no image is named: Berth runs scripts inside containers", fix)
        name = self.text("job-name") or re.sub(r"[^A-Za-z0-9._-]", "-", script_name)[:64] or "job"
        fields: dict[str, Any] = {
            "name": name,
            "image": self.text("image"),
            "description": self.text("comment"),
            "system": self.text("system") or self.read("clusters", only_one),
            "queue": self.read("partition", only_one),
            "resources": self.resources(),
            "array": self.text("array"),
            "after": self.read("dependency", dependencies),
            "env": self.env(),
            "inputs": [self._input(given) for given in self.several["input"]],
            "outputs": self.outputs(name),
            "options": self.options(),
        }
        return {key: value for key, value in fields.items() if value not in (None, {}, [])}

    def resources(self) -> dict[str, Any]:
        """Nodes, cores and GPUs of a node, memory of a node, and time."""
        nodes = self.read("nodes", node_count)
        per_node = self.read("ntasks-per-node", positive)
        tasks = self.read("ntasks", positive)
        cpus = self.read("cpus-per-task", positive, 1)
        if nodes is None:
            nodes = -(-tasks // per_node) if tasks and per_node else 1
        tasks_here = per_node or -(-(tasks or 1) // nodes)
        cores = tasks_here * cpus
        found: dict[str, Any] = {"nodes": nodes, "cores": cores, "gpus": self.gpus(nodes, tasks_here)}
        mib = self.read("mem", memory_mib)
        if mib is None and (per_cpu := self.read("mem-per-cpu", memory_mib)) is not None:
            mib = per_cpu * cores
        found["memory"] = f"{mib}M" if mib else None
        found["time"] = self.read("time", minutes_of)
        return {key: value for key, value in found.items() if value is not None}

    def gpus(self, nodes: int, tasks_here: int) -> str | None:
        """GPUs of one node, from whichever option asks for them."""
        kind, count = self.read("gres", gpus_of_gres, ("", 0))
        if self.has("gpus"):
            kind, total = self.read("gpus", gpu_count)
            if total % nodes:
                raise UsageError(
                    f"--gpus: {total} GPUs cannot be spread evenly over {nodes} nodes", "use --gpus-per-node"
                )
            count = total // nodes
        if self.has("gpus-per-task"):
            kind, each = self.read("gpus-per-task", gpu_count)
            count = each * tasks_here
        if self.has("gpus-per-node"):
            kind, count = self.read("gpus-per-node", gpu_count)
        return f"{kind}{count}" if count else None

    def env(self) -> dict[str, str]:
        """Variables from ``--export`` and ``--env``."""
        variables: dict[str, str] = {}
        for entry in filter(None, (self.text("export") or "").split(",")):
            key, equals, value = entry.partition("=")
            if key == "ALL" and not equals:
                self.warnings.append(
                    f"{self.last['export'].where}: --export=ALL: {BY_LONG['export'].note.partition('; ')[2]}"
                )
            elif key in ("NONE", "NIL") and not equals:
                continue
            elif not equals and key not in self.environ:
                raise UsageError(f"--export: {key} is not set here", f"write {key}=VALUE")
            else:
                variables[key] = value if equals else self.environ[key]
        for given in self.several["env"]:
            key, equals, value = given.value.partition("=")
            if not equals:
                raise UsageError(f"{given.where}: --env: '{given.value}' has no value", "write --env KEY=VALUE")
            variables[key] = value
        return variables

    def _input(self, given: Given) -> dict[str, str]:
        source, target = split_input(given.value)
        return {"source": source, "target": target} if target else {"source": source}

    def outputs(self, job_name: str) -> dict[str, str]:
        """Log file names. As in Slurm, errors go where the output goes unless ``--error`` says otherwise."""
        stdout = self._file("output", job_name)
        stderr = self._file("error", job_name) or stdout
        return {key: value for key, value in (("stdout", stdout), ("stderr", stderr)) if value}

    def _file(self, name: str, job_name: str) -> str | None:
        given = self.last.get(name)
        if given is None:
            return None
        if given.value == "/dev/null":
            self.warnings.append(f"{given.where}: --{name}=/dev/null is ignored: the log is kept in the job's output")
            return None
        path = PurePosixPath(given.value)
        if len(path.parts) > 1:
            self.warnings.append(f"{given.where}: --{name}: the file is '{path.name}' in the job's output directory")
        found: str = self.read(name, lambda _: file_name(path.name, job_name))
        return found

    def options(self) -> dict[str, Any]:
        """What goes on to the scheduler as it is."""
        passed: dict[str, Any] = {
            name: given.value or True for name, given in self.last.items() if given.option.how is How.PASSED
        }
        others = [entry for entry in (self.text("gres") or "").split(",") if entry and entry.split(":")[0] != "gpu"]
        return {**passed, "gres": ",".join(others)} if others else passed
