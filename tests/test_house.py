"""House rules that a reader relies on: public functions are typed and documented, and numbers say their unit."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import fields, is_dataclass

import pytest

ROOTS = ("scheduler.model", "placement", "images", "backends.base")
TRAVELS = "images.programs."
"""Programs for the Python of old hosts: untyped on purpose, since every byte of them travels."""
UNITS = re.compile(r"_(s|ms|mib|millicores|bytes|per_hour|per_kwh|per_s|hours|minutes|usd|at)$|^(p\d\d|run|wait)_s$")
COUNTS = re.compile(
    r"nodes|cores|gpus|jobs|indices|limit|offset|version|number|attempt|attempts|port|count|fence|id|skip|seed|order|"
    r"total|free|down|queued|running|completed|failed|restarts|signal|exit_code|mode|precedence|priority|weight|"
    r"factor|speed|quantile|confidence|slots|column|position|index|share|probability|depth|size|workers|rank|"
    r"first|second|days|draws|line|pairs|contradicted|spare|submissions|copies|slack|deterministic|value|epoch|left|tasks|variables|followers|level|processors|nice|kind|^mib$"
)


def modules():
    for root in ROOTS:
        module = importlib.import_module(root)
        yield module
        for found in pkgutil.walk_packages(getattr(module, "__path__", []), root + "."):
            if not found.name.startswith(TRAVELS):
                yield importlib.import_module(found.name)


def public_functions():
    for module in modules():
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            elif inspect.isclass(thing):
                for inner, method in vars(thing).items():
                    if inspect.isfunction(method) and not inner.startswith("_"):
                        yield f"{module.__name__}.{name}.{inner}", method


@pytest.mark.parametrize(
    ("name", "function"), list(public_functions()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_public_function_is_typed(name, function):
    signature = inspect.signature(function)
    untyped = [
        p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")
    ]
    assert not untyped, f"{name}: no type on {untyped}"
    assert signature.return_annotation is not signature.empty, f"{name}: no return type"


def test_a_public_module_function_says_what_it_means():
    """Filters are spared: their name is the claim that they check."""
    silent = [
        name
        for name, function in public_functions()
        if not inspect.getdoc(function)
        and "." not in function.__qualname__
        and inspect.signature(function).return_annotation != "Rejection | None"
    ]
    assert not silent, f"no docstring: {silent}"


def numbers():
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__ or name.startswith("_"):
                continue
            if inspect.isclass(thing) and is_dataclass(thing):
                for field in fields(thing):
                    yield f"{module.__name__}.{name}.{field.name}", field.name, str(field.type)
            elif inspect.isfunction(thing):
                for parameter in inspect.signature(thing).parameters.values():
                    yield f"{module.__name__}.{name}({parameter.name})", parameter.name, str(parameter.annotation)


def test_a_number_says_its_unit_in_its_name_or_counts_something():
    bare = [
        where
        for where, name, kind in numbers()
        if re.fullmatch(r"(int|float)( \| None)?", kind) and not UNITS.search(name) and not COUNTS.search(name)
    ]
    assert not bare, f"name the unit (walltime_s, memory_mib, ...): {bare}"
