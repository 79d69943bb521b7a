"""What the routes of stored definitions (systems, apps) share: bodies that change attributes, and flags."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError, create_model

from api.schemas.base import Body

B = TypeVar("B", bound=Body)
T = TypeVar("T")


def patch_body(name: str, whole: type[Body], patchable: Collection[str]) -> type[Body]:
    """The body of PATCH and PUT: what may change may also be left out, the rest is taken and ignored, as in Tapis.

    Values are checked when the whole definition is, by ``checked``.
    """

    class Base(Body):
        output_only = whole.output_only | (whole.model_fields.keys() - set(patchable))

    loose: dict[str, Any] = {
        field: (whole.model_fields[field].annotation | None, None)  # type: ignore[operator]
        for field in sorted(patchable)
    }
    return create_model(name, __base__=Base, **loose)


def attributes_in(body: Body) -> dict[str, Any]:
    """The attributes that a body names."""
    return body.model_dump(exclude_unset=True)


def defaults(whole: type[Body], names: Collection[str]) -> dict[str, Any]:
    """What these attributes are when nobody says."""
    return {name: whole.model_fields[name].get_default() for name in names}


def checked(whole: type[B], values: Mapping[str, Any]) -> B:
    """A definition as a request's body would be checked; the same 400 says what is wrong with it."""
    try:
        return whole.model_validate(values)
    except ValidationError as wrong:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in wrong.errors()]) from None


def counting(changed: Callable[[T], T]) -> tuple[Callable[[T], T], list[T]]:
    """``changed``, and the list in which it leaves what it really changed."""
    made: list[T] = []

    def change(one: T) -> T:
        newer = changed(one)
        made[:] = [newer] if newer != one else []
        return newer

    return change, made
