"""Small checked types that the models are made of; each refuses bad input with a line a person can act on."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from model.names import LABEL_LIMIT

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Frozen(BaseModel):
    """Base of all models: immutable, no unknown keys, no silent conversion (``"2"`` is not a number).

    Fields have Python's form of name in Python (``drain_seconds``), Kubernetes' in YAML and JSON (``drainSeconds``).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe each field by its docstring.

        Pydantic's ``use_attribute_docstrings`` parses the source of every model whenever it is imported, which is a
        tenth of a second of every release; here it is parsed when somebody asks for the schema.
        """
        found = handler(core_schema)
        properties = handler.resolve_ref_schema(found)["properties"]
        for base in reversed(cls.__mro__[: cls.__mro__.index(Frozen)]):
            for name, text in _attribute_docstrings(base):
                if name in cls.model_fields:
                    field = cls.model_fields[name]
                    properties[field.alias or name].setdefault("description", text)
        return found


def _attribute_docstrings(model: type) -> Iterator[tuple[str, str]]:
    """Yield field → the text that stands below it in the source."""
    (node,) = ast.parse(dedent(inspect.getsource(model))).body
    for field, text in pairwise(cast("ast.ClassDef", node).body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                yield name, inspect.cleandoc(said)
            case _:
                pass


_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_REGISTRY_HOST = re.compile(r"(localhost|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)(:[0-9]{1,5})?\Z")
# https://github.com/distribution/reference: tag
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?|\.[0-9]+)(?P<unit>n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?\Z")
_URL_PATH = re.compile(r"/([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*\Z")
_ENVIRONMENT_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ADDRESS = re.compile(r"(?P<host>[0-9]{1,3}(\.[0-9]{1,3}){3}|[a-z0-9]([-a-z0-9.]*[a-z0-9])?):(?P<port>[0-9]{1,5})\Z")
_HIGHEST_PORT = 65535
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_CONFIG_PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
_CONTAINER_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+\Z")
_CONFIG_PATH_LIMIT = 253
# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data
_SECRET_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")


def _dns_label(value: str) -> str:
    if not _DNS_LABEL.match(value) or len(value) > LABEL_LIMIT:
        raise ValueError(
            f"{value!r} is no DNS label: lower-case letters, digits and '-', first a letter, at most {LABEL_LIMIT}"
        )
    return value


def _host_name(value: str) -> str:
    if not _HOST_NAME.match(value) or any(len(label) > LABEL_LIMIT for label in value.split(".")):
        raise ValueError(f"{value!r} is no host name: lower-case DNS labels joined by '.', no scheme, port or path")
    return value


def _registry_host(value: str) -> str:
    host, _, port = value.partition(":")
    if not _REGISTRY_HOST.match(value) or ("." not in host and not port and host != "localhost"):
        raise ValueError(
            f"{value!r} is no registry: a host name with a '.' or a port, such as harbor.example.com (no scheme)"
        )
    return value


def _tag(value: object) -> object:
    if isinstance(value, bool | int | float):
        text = str(value)
        raise ValueError(f'{text} is a number, not a tag: quote it ("{text}")')  # noqa: TRY004 - pydantic's protocol
    if isinstance(value, str) and not _TAG.match(value):
        raise ValueError(
            f"{value!r} is no image tag: letters, digits, '_', '.' and '-', first a letter, digit or '_', at most 128"
        )
    return value


def _quantity(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # As it is written in YAML, and never with an exponent.
        value = f"{Decimal(str(value)):f}"
    if isinstance(value, str) and not _QUANTITY.match(value):
        raise ValueError(f"{value!r} is no Kubernetes quantity: a number and a unit, such as 250m, 0.5, 128Mi, 2Gi")
    return value


def _url_path(value: str) -> str:
    if not _URL_PATH.match(value):
        raise ValueError(f"{value!r} is no URL path: it starts with '/' and has no query, fragment or space")
    # An Ingress with one of these is refused by Kubernetes, when the pods are there already.
    if "//" in value or "%2f" in value.lower() or any(part in {".", ".."} for part in value.split("/")):
        raise ValueError(f"{value!r} is no plain URL path: '//', '%2F', '.' and '..' are not allowed")
    return value


def _variable_name(value: str) -> str:
    if not _ENVIRONMENT_VARIABLE.match(value):
        raise ValueError(f"{value!r} is no environment variable name: letters, digits and '_', first no digit")
    return value


def _commit(value: object) -> object:
    if isinstance(value, bool | int | float):
        text = str(value)
        raise ValueError(f'{text} is a number, not a commit: quote it ("{text}")')  # noqa: TRY004 - pydantic's protocol
    if isinstance(value, str) and not _COMMIT.match(value):
        raise ValueError(f"{value!r} is no commit: 7 or more hexadecimal digits, in lower case")
    return value


def _config_path(value: str) -> str:
    if not _CONFIG_PATH.match(value) or len(value) > _CONFIG_PATH_LIMIT or _leaves(value) or value.startswith(".."):
        raise ValueError(
            f"{value!r} is no path of a file in the config repository: letters, digits, '.', '_' and '-' in parts "
            f"joined by '/', relative, not '..' first, no part '.' or '..', at most {_CONFIG_PATH_LIMIT} characters"
        )
    return value


def _container_path(value: str) -> str:
    if not _CONTAINER_PATH.match(value) or _leaves(value):
        raise ValueError(
            f"{value!r} is no path in a container: absolute, such as /app/config, without '..' or final '/'"
        )
    return value


def _secret_key(value: str) -> str:
    # Kubernetes refuses a key of a ConfigMap or Secret that begins with `..` (apimachinery, `IsConfigMapKey`).
    if not _SECRET_KEY.match(value) or value == "." or value.startswith(".."):
        raise ValueError(
            f"{value!r} is no name of a secret: letters, digits, '.', '_' and '-', not '..' first, at most 253"
        )
    return value


def _leaves(path: str) -> bool:
    return any(part in {".", ".."} for part in path.split("/"))


def _address(value: str) -> str:
    match = _ADDRESS.match(value)
    if not match or not 0 < int(match["port"]) <= _HIGHEST_PORT:
        raise ValueError(f"{value!r} is no address: host:port, such as 10.0.0.10:80")
    return value


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
"""A DNS label, the form of a Kubernetes namespace or Service."""
HostName = Annotated[str, AfterValidator(_host_name)]
"""A lower-case host name of one or more labels."""
RegistryHost = Annotated[str, AfterValidator(_registry_host)]
"""A registry as it begins an image reference: ``harbor.example.com`` or ``10.0.0.5:5000``."""
Tag = Annotated[str, BeforeValidator(_tag)]
"""An image tag; a bare number is refused with the advice to quote it."""
Quantity = Annotated[str, BeforeValidator(_quantity, json_schema_input_type=str | float)]
"""A Kubernetes quantity (``250m`` CPU, ``128Mi`` bytes)."""
UrlPath = Annotated[str, AfterValidator(_url_path)]
"""An absolute URL path."""
VariableName = Annotated[str, AfterValidator(_variable_name)]
"""A name of an environment variable."""
Address = Annotated[str, AfterValidator(_address)]
"""``host:port`` to connect to."""
Commit = Annotated[str, BeforeValidator(_commit)]
"""A commit of a Git repository, whole or shortened to at least 7 digits."""
ConfigPath = Annotated[str, AfterValidator(_config_path)]
"""A file in the config repository, below the folders that say whom it is for."""
ContainerPath = Annotated[str, AfterValidator(_container_path)]
"""An absolute path in a container."""
SecretKey = Annotated[str, AfterValidator(_secret_key)]
"""A name of a secret."""
Port = Annotated[int, Field(ge=1, le=_HIGHEST_PORT)]
"""A TCP port that a process without privileges may listen on is 1024 or higher; any port is accepted here."""
Seconds = Annotated[int, Field(ge=0, le=3600)]
"""A duration in whole seconds, up to an hour."""
Count = Annotated[int, Field(ge=0, le=1000)]
"""A number of pods."""
Percent = Annotated[int, Field(ge=1, le=100)]
"""A whole percentage."""

_UNITS: dict[str | None, Fraction] = {
    None: Fraction(1),
    **{unit: Fraction(1, 1000 ** (power + 1)) for power, unit in enumerate("mun")},
    **{unit: Fraction(1000 ** (power + 1)) for power, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Fraction(1024 ** (power + 1)) for power, unit in enumerate("KMGTPE")},
}


def quantity_value(quantity: str) -> Fraction:
    """Return a quantity in its base unit, exactly: ``250m`` → 1/4 (cores), ``1Ki`` → 1024 (bytes).

    The API server writes ``0.7Gi`` as ``751619276800m``, and smaller parts with ``u`` and ``n``: two texts of one
    quantity must be equal.
    """
    match = _QUANTITY.match(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no Kubernetes quantity")
    return Fraction(match["number"]) * _UNITS[match["unit"]]


def usual_bytes(quantity: str) -> str:
    """Return a quantity of bytes as one text, however it was written: ``1024Mi`` and ``1.0Gi`` → ``1Gi``.

    The shortest, without a decimal point. What is no whole number of bytes stays as it is.
    """
    value = quantity_value(quantity)
    if value.denominator != 1:
        return quantity
    known = [(unit or "", size) for unit, size in _UNITS.items() if size >= 1 and value % size == 0]
    return min((f"{value / size}{unit}" for unit, size in known), key=lambda text: (len(text), text))


def plain_mapping(data: object) -> dict[str, Any] | None:
    """Return parsed YAML as a mapping with text keys, None when it is something else."""
    return {str(key): value for key, value in cast("dict[Any, Any]", data).items()} if isinstance(data, dict) else None


def merged(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``override`` laid over it: mappings merge key by key, all else is replaced."""
    result = dict(base)
    for key, value in override.items():
        below, above = plain_mapping(result.get(key)), plain_mapping(value)
        result[key] = value if below is None or above is None else merged(below, above)
    return result


def field_names(*models: type[BaseModel]) -> list[str]:
    """Return the names of all fields of the models and of the models inside them, for suggestions."""
    names: dict[str, None] = {}
    for model in models:
        for name, field in model.model_fields.items():
            names[field.alias or name] = None
            names.update(dict.fromkeys(field_names(*_models_in(field.annotation))))
    return list(names)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the models that a type speaks of, also inside unions and collections."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
