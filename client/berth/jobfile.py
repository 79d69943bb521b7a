"""Job files: a friendly description of one job, turned into the submit request that travels. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from berth.errors import InvalidInput
from berth.units import minutes_of, parse_memory_mib

Fragment = dict[str, Any]
ANONYMOUS_APP = {"appId": "berth.image", "appVersion": "1"}
"""The app of a job that names an image itself."""

ANYWHERE = "any"
"""As ``system``: let Berth choose, even where the app names one."""

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")
_ARRAY = re.compile(r"\d+(?:-\d+(?::[1-9]\d*)?)?(?:,\d+(?:-\d+(?::[1-9]\d*)?)?)*(?:%[1-9]\d*)?")
_GPUS = re.compile(r"(?:[A-Za-z][A-Za-z0-9_.-]*:)?[1-9]\d*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")


class Wrong(Exception):
    """One field of a job file that cannot be meant."""

    def __init__(self, field: str, wrong: str, fix: str = "") -> None:
        super().__init__(f"{field}: {wrong}" + (f"; {fix}" if fix else ""))


def request_from_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """The submit request for a job file's content; a Tapis submit request is passed through as it is.

    InvalidInput names every field that is wrong, and what to write instead.
    """
    if not isinstance(job, Mapping):
        raise InvalidInput("a job file holds names and values", "begin with: image: docker://...")
    if "appId" in job:
        return dict(job)
    request, wrongs = _read(FIELDS, job, "")
    has_image, has_app = (job.get(name) is not None for name in ("image", "app"))
    if has_image == has_app:
        wrongs.append(
            str(Wrong("image", "name either an image or an app", "write for example image: docker://python:3.12"))
        )
    if not has_image and job.get("command") is not None:
        wrongs.append(str(Wrong("command", "an app has its own command", "use args, or name an image")))
    if wrongs:
        raise InvalidInput("; ".join(wrongs))
    if has_image and "execSystemId" not in request:
        request["dynamicExecSystem"] = True
    if has_app:
        _quote_args(request)
    request.setdefault("name", _name_for(job))
    return request


def _read(fields: Mapping[str, Reader], content: Mapping[str, Any], within: str) -> tuple[Fragment, list[str]]:
    """What the fields of a mapping come to together, and everything that is wrong with them."""
    whole: Fragment = {}
    wrongs: list[str] = []
    for name, value in content.items():
        field = f"{within}{name}"
        reader = fields.get(name)
        if reader is None:
            near = get_close_matches(str(name), fields, n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(fields)}"
            wrongs.append(str(Wrong(field, "there is no such field", fix)))
            continue
        if value is None:
            continue
        try:
            _merge(whole, reader(field, value))
        except Wrong as wrong:
            wrongs.append(str(wrong))
        except InvalidInput as several:
            wrongs.append(several.message)
    return whole, wrongs


def _merge(whole: Fragment, part: Mapping[str, Any]) -> None:
    """Put ``part`` into ``whole``: mappings merge, lists grow, anything else replaces."""
    for name, value in part.items():
        if isinstance(value, Mapping):
            _merge(whole.setdefault(name, {}), value)
        elif isinstance(value, list):
            whole[name] = [*whole.get(name, []), *value]
        else:
            whole[name] = value


def _quote_args(request: Fragment) -> None:
    """Keep each argument one word: an app's arguments are pieces of command line, an image's are words already."""
    for arg in request.get("parameterSet", {}).get("appArgs", ()):
        arg["arg"] = shlex.quote(arg["arg"])


def _name_for(job: Mapping[str, Any]) -> str:
    """A job's name where none is given: the last word of what it runs."""
    last = re.split(r"[/\\]", str(job.get("image") or job.get("app")))[-1]
    word = re.split(r"[:@]", last)[0].removesuffix(".sif")
    return re.sub(r"[^A-Za-z0-9._-]", "-", word)[:64] or "job"


# -- one value ---------------------------------------------------------------------------------------------------


def _text(field: str, value: Any) -> str:
    if isinstance(value, bool | float) or not isinstance(value, str | int):
        raise Wrong(field, f"must be a text, not {_kind(value)}", "put it in quotes")
    text = str(value)
    if not text.strip() or "\0" in text:
        raise Wrong(field, "is empty" if "\0" not in text else "holds a NUL character")
    return text


def _value(field: str, value: Any) -> str:
    """A variable's value: any text, the empty one too; numbers only where their text is beyond doubt."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        raise Wrong(field, f"YAML reads it as the number {value}", "put it in quotes to keep it as written")
    if not isinstance(value, str | int):
        raise Wrong(field, f"must be a text, not {_kind(value)}")
    if "\0" in str(value):
        raise Wrong(field, "holds a NUL character")
    return str(value)


def _count(field: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not 0 < int(text) < 2**31:
        raise Wrong(field, f"must be a whole number of at least 1, not {_shown(value)}")
    return int(text)


def _yes_or_no(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(field, f"must be true or false, not {_shown(value)}")
    return value


def _measured(measure: Callable[[str], int]) -> Callable[[str, Any], int]:
    def read(field: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise Wrong(field, f"must be a text or a whole number, not {_kind(value)}")
        try:
            return measure(str(value))
        except ValueError as error:
            raise Wrong(field, str(error)) from None

    return read


def _memory_mib(text: str) -> int:
    mib = parse_memory_mib(text)
    if mib < 1:
        raise ValueError(f"'{text}' is no memory at all; ask for at least 1M")
    return mib


def _matching(pattern: re.Pattern[str], example: str) -> Callable[[str, Any], str]:
    def read(field: str, value: Any) -> str:
        text = _text(field, value)
        if pattern.fullmatch(text) is None:
            raise Wrong(field, f"cannot read {_shown(value)}", f"write for example {example}")
        return text

    return read


def _one_of(**choices: str) -> Callable[[str, Any], str]:
    def read(field: str, value: Any) -> str:
        found = choices.get(str(value).replace("-", "_").lower())
        if found is None:
            known = ", ".join(name.replace("_", "-") for name in choices)
            raise Wrong(field, f"there is no {_shown(value)}", f"one of {known}")
        return found

    return read


def _list(field: str, value: Any) -> list[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise Wrong(field, f"must be a list, not {_kind(value)}", "write [one, two] or one item a line after a dash")
    return list(value)


def _texts(field: str, value: Any) -> list[str]:
    return [_text(f"{field}[{at}]", item) for at, item in enumerate(_list(field, value))]


def _words(field: str, value: Any) -> list[str]:
    """Arguments: texts that may be empty."""
    return [_value(f"{field}[{at}]", item) for at, item in enumerate(_list(field, value))]


def _mapping(field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Wrong(field, f"must hold names and values, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        float: "a number",
        int: "a number",
        str: "a text",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    return f"'{str(value)[:60]}'"


# -- whole fields ------------------------------------------------------------------------------------------------

Reader = Callable[[str, Any], Fragment]
"""Reads the value of a field (its name comes first, for messages) into a piece of the submit request. Raises Wrong."""


def _to(path: str, value: Callable[[str, Any], Any]) -> Reader:
    """A reader that puts one value at a dotted path of the request."""

    def read(field: str, raw: Any) -> Fragment:
        *parents, last = path.split(".")
        fragment: Fragment = {last: value(field, raw)}
        for name in reversed(parents):
            fragment = {name: fragment}
        return fragment

    return read


def _section(fields: Mapping[str, Reader]) -> Reader:
    def read(field: str, raw: Any) -> Fragment:
        fragment, wrongs = _read(fields, _mapping(field, raw), f"{field}.")
        if wrongs:
            raise InvalidInput("; ".join(wrongs))
        return fragment

    return read


def _image(field: str, raw: Any) -> Fragment:
    return {**ANONYMOUS_APP, "notes": {"berth": {"image": _text(field, raw)}}}


def _app(field: str, raw: Any) -> Fragment:
    app_id, _, version = _text(field, raw).partition(":")
    if not app_id or not version:
        raise Wrong(field, "must say which version", f"write {app_id or 'name'}:VERSION; berth apps ls shows them")
    return {"appId": app_id, "appVersion": version}


def _system(field: str, raw: Any) -> Fragment:
    name = _text(field, raw)
    return {"dynamicExecSystem": True} if name == ANYWHERE else {"execSystemId": name}


def _args(field: str, raw: Any) -> Fragment:
    args = [{"name": f"arg{at}", "arg": arg} for at, arg in enumerate(_words(field, raw), start=1)]
    return {"parameterSet": {"appArgs": args}}


def _command(field: str, raw: Any) -> Fragment:
    words = _words(field, raw)
    if not words or not words[0]:
        raise Wrong(field, "is empty", "write for example [python3, -c, 'print(1)']")
    return {"notes": {"berth": {"command": words}}}


def _env(field: str, raw: Any) -> Fragment:
    variables = []
    for key, value in _mapping(field, raw).items():
        if _ENV_KEY.fullmatch(str(key)) is None:
            raise Wrong(f"{field}.{key}", "is no name of a variable", "use letters, digits and _")
        variables.append({"key": key, "value": "" if value is None else _value(f"{field}.{key}", value)})
    return {"parameterSet": {"envVariables": variables}}


def _inputs(field: str, raw: Any) -> Fragment:
    return {"fileInputs": [_input(f"{field}[{at}]", item) for at, item in enumerate(_list(field, raw))]}


def _input(field: str, raw: Any) -> Fragment:
    if isinstance(raw, str):
        raw = {"source": raw}
    fragment, wrongs = _read(INPUT, _mapping(field, raw), f"{field}.")
    if not wrongs and "sourceUrl" not in fragment and "name" not in fragment:
        wrongs.append(str(Wrong(field, "names nothing", "write source: tapis://system/path or https://...")))
    if wrongs:
        raise InvalidInput("; ".join(wrongs))
    if "sourceUrl" in fragment:
        fragment.setdefault("targetPath", "*")
    return fragment


def _gpus(field: str, raw: Any) -> Fragment:
    return _scheduler("gpus-per-node", _matching(_GPUS, "2 or a100:2")(field, raw))


def _options(field: str, raw: Any) -> Fragment:
    whole: Fragment = {}
    for name, value in _mapping(field, raw).items():
        where = f"{field}.{name}"
        if _OPTION.fullmatch(str(name)) is None:
            raise Wrong(
                where, "is no long option of the scheduler", "write its name without dashes, as in account: lab"
            )
        if value is False:
            continue
        _merge(whole, _scheduler(name, None if value in (True, None, "") else _one_word(where, value)))
    return whole


def _one_word(field: str, value: Any) -> str:
    text = _text(field, value)
    if len(text.split()) != 1:
        raise Wrong(field, f"{_shown(text)} is more than one word")
    return text


def _scheduler(name: str, value: str | None) -> Fragment:
    argument = f"--{name}" if value is None else f"--{name} {value}"
    return {"parameterSet": {"schedulerOptions": [{"name": name, "arg": argument}]}}


def _after(field: str, raw: Any) -> Fragment:
    entries = [raw] if isinstance(raw, str | int) else _list(field, raw)
    return {"notes": {"berth": {"after": [_one_after(f"{field}[{at}]", entry) for at, entry in enumerate(entries)]}}}


def _one_after(field: str, raw: Any) -> dict[str, str]:
    if not isinstance(raw, Mapping):
        return {"uuid": _text(field, raw), "condition": "ok"}
    unknown = set(raw) - {"job", "uuid", "condition"}
    if unknown or not ("job" in raw) ^ ("uuid" in raw):
        raise Wrong(field, "must be a job, or hold job and condition", "write {job: UUID, condition: ok}")
    condition = _one_of(ok="ok", notok="notok", any="any")(f"{field}.condition", raw.get("condition", "ok"))
    return {"uuid": _text(field, raw.get("job", raw.get("uuid"))), "condition": condition}


def _mpi(field: str, raw: Any) -> Fragment:
    return {"isMpi": raw} if isinstance(raw, bool) else {"isMpi": True, "mpiCmd": _text(field, raw)}


def _weight(field: str, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw <= 1e6:
        raise Wrong(field, f"must be a number above 0, not {_shown(raw)}")
    return float(raw)


def _price(field: str, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= 1e9:
        raise Wrong(field, f"must be a number of USD, not {_shown(raw)}")
    return float(raw)


def _notes(field: str, raw: Any) -> Fragment:
    notes = _mapping(field, raw)
    if "berth" in notes:
        raise Wrong(f"{field}.berth", "is Berth's own", "use the fields of the job file")
    return {"notes": dict(notes)}


RESOURCES: Mapping[str, Reader] = {
    "nodes": _to("nodeCount", _count),
    "cores": _to("coresPerNode", _count),
    "memory": _to("memoryMB", _measured(_memory_mib)),
    "time": _to("maxMinutes", _measured(minutes_of)),
    "gpus": _gpus,
    "storage": _to("notes.berth.storageMB", _measured(_memory_mib)),
}
INPUT: Mapping[str, Reader] = {
    "source": _to("sourceUrl", _text),
    "target": _to("targetPath", _text),
    "name": _to("name", _text),
    "env": _to("envKey", _matching(_ENV_KEY, "DATA_FILE")),
    "mount": _to("autoMountLocal", _yes_or_no),
    "description": _to("description", _text),
}
OUTPUTS: Mapping[str, Reader] = {
    "system": _to("archiveSystemId", _text),
    "directory": _to("archiveSystemDir", _text),
    "when": _to("archiveMode", _one_of(always="ALWAYS", on_success="SKIP_ON_FAIL", never="NEVER")),
    "include": _to("parameterSet.archiveFilter.includes", _texts),
    "exclude": _to("parameterSet.archiveFilter.excludes", _texts),
    "stdout": _to("parameterSet.logConfig.stdoutFilename", _text),
    "stderr": _to("parameterSet.logConfig.stderrFilename", _text),
}
FIELDS: Mapping[str, Reader] = {
    "name": _to("name", _text),
    "description": _to("description", _text),
    "image": _image,
    "app": _app,
    "command": _command,
    "args": _args,
    "env": _env,
    "resources": _section(RESOURCES),
    "system": _system,
    "queue": _to("execSystemLogicalQueue", _text),
    "type": _to("jobType", _one_of(batch="BATCH", fork="FORK")),
    "constraints": _to("execSystemConstraints", _texts),
    "mpi": _mpi,
    "inputs": _inputs,
    "outputs": _section(OUTPUTS),
    "array": _to("notes.berth.array", _matching(_ARRAY, "0-99%10")),
    "after": _after,
    "weight": _to("notes.berth.weight", _weight),
    "hedge": _to("notes.berth.hedge", _count),
    "price": _to("notes.berth.maxPrice", _price),
    "deadline": _to("notes.berth.deadline", _matching(_INSTANT, "2026-03-01T18:00:00Z")),
    "network": _to("notes.berth.outboundNetwork", _yes_or_no),
    "options": _options,
    "tags": _to("tags", _texts),
    "notes": _notes,
}
"""Every field of a job file and what it becomes; job.schema.json describes the same fields to editors."""
