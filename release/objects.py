"""Kubernetes objects and other JSON as plain dicts: reading them without a type for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

Object = Mapping[str, Any]
"""An object in the API's own form."""


def inner(thing: Object, *keys: str) -> Object:
    """Return a mapping inside an object, empty where there is none on the way."""
    found: Object = thing
    for key in keys:
        value = found.get(key)
        found = cast("Object", value) if isinstance(value, dict) else {}
    return found


def items(thing: Object, key: str) -> Sequence[Object]:
    """Return a list of mappings inside an object, empty where there is none."""
    value = thing.get(key)
    return cast("Sequence[Object]", value) if isinstance(value, list) else ()


def name_of(thing: Object) -> str:
    """Return an object's name."""
    return str(inner(thing, "metadata").get("name", ""))


def uid_of(thing: Object) -> str:
    """Return an object's unique id."""
    return str(inner(thing, "metadata").get("uid", ""))


def condition(thing: Object, kind: str) -> Object:
    """Return one of an object's conditions, empty where it has none of that type."""
    return first(items(inner(thing, "status"), "conditions"), "type", kind)


def first(things: Sequence[Object], key: str, value: str) -> Object:
    """Return the first mapping whose field has a value, an empty one where there is none."""
    none: Object = {}
    return next((each for each in things if each.get(key) == value), none)
