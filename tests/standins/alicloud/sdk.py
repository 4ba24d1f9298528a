"""What pulumi-alicloud's own types say of inputs: the stand-in of the cloud and the unit tests hold resources to it."""

import importlib
import inspect
from collections import abc
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args, get_origin

from pulumi import Output, _types  # pyright: ignore[reportPrivateUsage] - the SDK's own way to read its types


class Unknown:
    """Stands for a value that is not known yet, in a preview."""


UNKNOWN = Unknown()


def args_class(token: str) -> type:
    """Return the class of the inputs of a resource: ``alicloud:vpc/network:Network`` → ``NetworkArgs``.

    Raises:
        LookupError: The SDK has no such resource.
    """
    package, path, name = token.split(":")
    try:
        folder, _, _ = path.partition("/")
        found = importlib.import_module(f"pulumi_{package}.{folder}")
        # A generated class is called `…InitArgs` where `…Args` means something else.
        for suffix in ("InitArgs", "Args"):
            if hasattr(found, f"{name}{suffix}"):
                return getattr(found, f"{name}{suffix}")
    except ImportError:
        pass
    raise LookupError(f"the SDK has no resource {token}")


def problems(token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with a resource's inputs as (property, reason): unknown, missing, or of another type.

    Args:
        token: Type of the resource.
        inputs: By the names that go over the wire (``vswitchIds``); ``UNKNOWN`` for what is not known yet.
    """
    return list(_problems_of(args_class(token), inputs, ""))


def _problems_of(model: type, given: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    types = _types.input_type_types(model)
    names = _types.input_type_py_to_pulumi_names(model)
    parameters = inspect.signature(model.__init__).parameters
    for python_name, name in names.items():
        if parameters[python_name].default is inspect.Parameter.empty and given.get(name) is None:
            yield f"{path}{name}", "is required"
    for name, value in given.items():
        if name not in types:
            yield f"{path}{name}", f"is no property of {model.__name__}"
        else:
            yield from _problems_in(types[name], value, f"{path}{name}")


def _problems_in(expected: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    expected = _without_input(expected)
    if value is None or isinstance(value, Unknown):
        return
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is abc.Sequence:
        yield from _in_list(arguments[0], value, path)
    elif origin is abc.Mapping:
        yield from _in_mapping(arguments[1], value, path)
    elif isinstance(expected, type) and _types.is_input_type(expected):
        if isinstance(value, Mapping):
            yield from _problems_of(expected, cast("Mapping[str, Any]", value), f"{path}.")
        else:
            yield path, f"must be {expected.__name__}, not {value!r}"
    elif not _is(expected, value):
        yield path, f"must be {expected.__name__}, not {value!r}"


def _in_list(expected: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, list):
        yield path, f"must be a list, not {value!r}"
        return
    for index, each in enumerate(cast("list[Any]", value)):
        yield from _problems_in(expected, each, f"{path}[{index}]")


def _in_mapping(expected: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, Mapping):
        yield path, f"must be a mapping, not {value!r}"
        return
    for key, each in cast("Mapping[str, Any]", value).items():
        yield from _problems_in(expected, each, f"{path}.{key}")


def _without_input(expected: Any) -> Any:
    """Return the plain type in ``Input[T]``, which is a union of ``T``, an awaitable and an Output."""
    plain = [
        each
        for each in get_args(expected)
        if get_origin(each) not in (abc.Awaitable, Output) and each is not type(None)
    ]
    return plain[0] if plain and get_origin(expected) not in (abc.Sequence, abc.Mapping) else expected


def _is(expected: type, value: Any) -> bool:
    if expected is bool or isinstance(value, bool):
        return expected is bool and isinstance(value, bool)
    if expected is int:
        # Numbers go over the wire as floats.
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if expected is float:
        return isinstance(value, int | float)
    return isinstance(value, expected)
