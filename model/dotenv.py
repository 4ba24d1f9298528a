"""Files of environment variables, one ``NAME=value`` a line. Strict, as what is misread would reach pods. Pure."""

from __future__ import annotations

import re

from model.problems import Problem, SettingsError

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=(?P<value>.*)\Z")
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?\Z")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?\Z')
_COMMENT = re.compile(r"(\A|\s+)#.*\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse_dotenv(file: str, content: bytes) -> dict[str, str]:
    r"""Return the variables of a file: name → value.

    Empty lines, lines that begin with ``#`` and a leading ``export`` are passed over. A value without quotes ends at a
    space and ``#``, and may not begin with ``#``; in single quotes everything is meant as it is; in double quotes
    ``\n``, ``\r``, ``\t``, ``\"``, ``\\`` and ``\$`` stand for what they do elsewhere. Nothing is put in for ``$NAME``.

    Args:
        file: Name of the file, for errors.
        content: Its bytes, UTF-8.

    Raises:
        SettingsError: With a line for each line that is wrong.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError([Problem(file, f"line {line}", "is not UTF-8 text")]) from None
    problems: list[Problem] = []
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        try:
            name, value = _variable(bare)
            if name in variables:
                raise ValueError(f"{name} is there twice")  # noqa: TRY301 - told in one place
        except ValueError as error:
            problems.append(Problem(file, f"line {number}", str(error)))
        else:
            variables[name] = value
    if problems:
        raise SettingsError(problems)
    return variables


def _variable(line: str) -> tuple[str, str]:
    match = _LINE.match(line)
    if not match:
        # The line itself is not shown: what stands here may be a secret.
        raise ValueError("is no NAME=value; a name has letters, digits and '_', first no digit")
    value = match["value"].lstrip()
    if match["value"].startswith("#"):
        # Some readers take it for a comment and some for the value, which may be a password.
        raise ValueError(f"{match['name']}: its value begins with #: put it in quotes, or write {match['name']}=")
    if value.startswith("'"):
        quoted = _SINGLE.match(value)
    elif value.startswith('"'):
        quoted = _DOUBLE.match(value)
    else:
        return match["name"], _COMMENT.sub("", value).rstrip()
    if not quoted:
        raise ValueError(f"{match['name']}: its quotes are not closed on this line, or something follows them")
    text = quoted["text"]
    return match["name"], text if value.startswith("'") else _unescaped(match["name"], text)


def _unescaped(name: str, text: str) -> str:
    def meant(found: re.Match[str]) -> str:
        letter = found[1]
        if letter not in _ESCAPES:
            raise ValueError(f"{name}: \\{letter} means nothing; use single quotes for text as it is")
        return _ESCAPES[letter]

    return re.sub(r"\\(.)", meant, text)
