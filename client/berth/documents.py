"""YAML and JSON documents: read strictly, written plainly."""

from __future__ import annotations

import re
from typing import Any

import yaml

from berth.errors import InvalidInput

MAX_BYTES = 1024 * 1024
"""What the server takes in one request."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain words: ``yes`` and ``12:30:00`` are texts, ``007`` is no number, and no key comes twice."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name for a table of the class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is no text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def read(text: str, source: str) -> list[Any]:
    """The documents in a YAML or JSON text. InvalidInput names ``source`` and the line of what is wrong."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise InvalidInput(f"{source} is larger than 1 MiB", "bring large data as an input")
    try:
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise InvalidInput(f"{source}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{source}: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{source} cannot be read: {error}") from None


def read_one(text: str, source: str) -> dict[str, Any]:
    """The one mapping that a text holds."""
    documents = read(text, source)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InvalidInput(f"{source} must hold exactly one mapping of names to values")
    return documents[0]


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, unprintable ones escaped, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.split("\n")
    style = '"' if not all(line.isprintable() for line in lines) else "|" if len(lines) > 1 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)


def write(value: Any) -> str:
    """A value as YAML, in the order in which it was made."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
