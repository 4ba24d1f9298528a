"""Does a configuration file parse? Told by its name, so that a typing error never reaches a pod. Pure."""

from __future__ import annotations

import codecs
import json
import re
import tomllib
from collections.abc import Callable
from xml.parsers import expat

import yaml

from model.problems import Problem, SettingsError

_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_COMMENTS = re.compile(rf"{_TEXT}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_FINAL_COMMAS = re.compile(rf"{_TEXT}|,(?=\s*[}}\]])")
_NGINX_FOLDERS = {"nginx", "conf.d"}
_POSITION = re.compile(r"\(at line (\d+), column \d+\)")


class _WrongError(ValueError):
    """What is wrong, and in which line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def check_syntax(file: str, content: bytes) -> None:
    """Check a file by what its name says it is; one of another kind is taken as it is.

    JSON, YAML, XML (also ``.config``), TOML and nginx's configuration (``nginx.conf``, and ``*.conf`` in a folder
    ``nginx`` or ``conf.d``) are known. ``appsettings*.json`` may have comments and final commas, as
    .NET reads it; other JSON may not. XML is read in the encoding that it declares; the others are UTF-8.

    Args:
        file: Its path; named in errors.
        content: Its bytes.

    Raises:
        SettingsError: If it does not parse; with the line.
    """
    name = file.rsplit("/", 1)[-1].lower()
    kind = name.rpartition(".")[2] if "." in name else ""
    try:
        if kind == "json":
            _json(content, settings=name.startswith("appsettings"))
        elif name == "nginx.conf":
            kind = "nginx configuration"
            _nginx(content, whole=True)
        elif kind == "conf" and _NGINX_FOLDERS & set(file.split("/")[:-1]):
            kind = "nginx configuration"
            _nginx(content, whole=False)
        elif kind in _CHECKS:
            _CHECKS[kind](content)
    except _WrongError as error:
        shown = {"yml": "YAML", "config": "XML"}.get(kind, kind if " " in kind else kind.upper())
        raise SettingsError([Problem(file, f"line {error.line}", f"not readable as {shown}: {error}")]) from None


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _WrongError(content.count(b"\n", 0, error.start) + 1, "is not UTF-8 text") from None


def _json(content: bytes, *, settings: bool) -> None:
    """Check JSON; that of .NET's settings may have comments, and has to be an object that has no key twice."""
    text = _text(content)
    if settings:
        text = _FINAL_COMMAS.sub(_blank, _COMMENTS.sub(_blank, text))
    try:
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once if settings else None)
        if settings and not isinstance(found, dict):
            raise ValueError("is no object: .NET takes settings only from { … }")  # noqa: TRY301 - told in one place
    except json.JSONDecodeError as error:
        raise _WrongError(error.lineno, f"{error.msg}, column {error.colno}") from None
    except ValueError as error:
        raise _WrongError(1, str(error)) from None
    except RecursionError:
        raise _WrongError(1, "is nested too deeply") from None


def _blank(found: re.Match[str]) -> str:
    """Replace what .NET passes over by spaces, so that positions stay; leave texts alone."""
    token = found[0]
    return token if token.startswith('"') else re.sub(r"[^\n]", " ", token)


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse what .NET can't start with; it takes ``Name`` and ``name`` for the same key."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key.casefold() in seen:
            raise ValueError(f"{key!r} is there twice in one object, which .NET does not start with")
        seen.add(key.casefold())
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")


def _yaml(content: bytes) -> None:
    try:
        # Events only: no tag is followed and no alias resolved.
        for _ in yaml.parse(_text(content), Loader=yaml.SafeLoader):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _WrongError(mark.line + 1 if mark else 1, error.problem or error.context or "does not parse") from None
    except yaml.YAMLError as error:
        raise _WrongError(1, " ".join(str(error).split())) from None
    except RecursionError:
        raise _WrongError(1, "is nested too deeply") from None


def _xml(content: bytes) -> None:
    declared: list[str] = []
    parser = expat.ParserCreate()  # follows no reference to anything outside unless it is given a handler for it
    parser.XmlDeclHandler = lambda _version, encoding, _standalone: declared.append(encoding or "")
    try:
        try:
            parser.Parse(content, True)  # noqa: FBT003 - expat's signature
        except (ValueError, LookupError):
            # Of encodings with several bytes for a character expat knows Unicode's alone; .NET knows GBK as well.
            text = _decoded(content, declared[-1])
            expat.ParserCreate("utf-8").Parse(text, True)  # noqa: FBT003 - its name counts, not the declared one
    except expat.ExpatError as error:
        raise _WrongError(error.lineno, f"{expat.errors.messages[error.code]}, column {error.offset + 1}") from None


def _decoded(content: bytes, encoding: str) -> bytes:
    """Return XML as UTF-8 that was written in the encoding which it declares."""
    try:
        # GB2312 is what Windows calls GBK; the codec of that name lacks thousands of its characters.
        codec = "gb18030" if codecs.lookup(encoding).name == "gb2312" else encoding
        return content.decode(codec).encode()
    except LookupError:
        raise _WrongError(1, f"{encoding} is no encoding that is known: declare UTF-8, and save it so") from None
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        raise _WrongError(content.count(b"\n", 0, start) + 1, f"is not {encoding} text") from None


def _config(content: bytes) -> None:
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        _xml(content)


def _toml(content: bytes) -> None:
    try:
        tomllib.loads(_text(content))
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        line = int(found[1]) if found else content.count(b"\n") + 1
        raise _WrongError(line, _POSITION.sub("", str(error)).strip()) from None


def _nginx(content: bytes, *, whole: bool) -> None:
    from model.nginx import NginxError, check_nginx  # noqa: PLC0415 - rarely used, and start-up counts

    try:
        check_nginx(_text(content), whole=whole)
    except NginxError as error:
        raise _WrongError(error.line, str(error)) from None


_CHECKS: dict[str, Callable[[bytes], None]] = {
    "yaml": _yaml,
    "yml": _yaml,
    "xml": _xml,
    "config": _config,
    "toml": _toml,
}
