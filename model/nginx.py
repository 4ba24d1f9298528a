"""Does a configuration of nginx parse? Told by crossplane, which nginx's makers wrote for that. Pure."""
# crossplane has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from crossplane.analyzer import analyze, enter_block_ctx
from crossplane.errors import NgxParserBaseException
from crossplane.lexer import _balance_braces, _lex_file_object

_Token = tuple[str, int, bool]
"""Text, line, and whether it was in quotes."""
_OPENS, _CLOSES, _ENDS = "{", "}", ";"


class NginxError(ValueError):
    """What is wrong, and in which line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def check_nginx(text: str, *, whole: bool) -> None:
    """Check a configuration; ``include`` is not followed.

    A directive that crossplane does not know, as one of a later nginx or of a module, is let pass. One that it knows
    must have the right number of arguments, and its ``;`` or its block.

    Args:
        text: The file.
        whole: Whether it is the whole configuration: then each directive must also be in a block where it may be.
            Otherwise it is a part that is included in ``http``, as most are.

    Raises:
        NginxError: At the first mistake.
    """
    # crossplane's own parse() opens the file itself, by its name; this is how it begins.
    tokens = cast("Iterator[_Token]", _balance_braces(_lex_file_object([text + "\n"])))
    try:
        _check_block(tokens, () if whole else ("http",), whole=whole)
    except NgxParserBaseException as error:
        raise NginxError(cast("int | None", error.lineno) or 1, str(error.strerror)) from None
    except RecursionError:
        raise NginxError(1, "is nested too deeply") from None


def _check_block(tokens: Iterator[_Token], context: tuple[str, ...], *, whole: bool) -> None:
    for directive, line, quoted in tokens:
        if directive == _CLOSES and not quoted:
            return
        if directive.startswith("#") and not quoted:
            continue
        words, end = _arguments(tokens)
        if end not in {_OPENS, _ENDS}:
            raise NginxError(line, f'directive "{directive}" is not terminated by ";"')
        statement = {"directive": directive, "line": line, "args": words}
        analyze("", statement, end, context, check_ctx=whole)
        if end == _OPENS:
            inner = cast("tuple[str, ...]", enter_block_ctx(statement, context))
            _check_block(tokens, inner, whole=whole)


def _arguments(tokens: Iterator[_Token]) -> tuple[list[str], str]:
    """Return a directive's words and what ends it; nothing where the file ends before that."""
    words: list[str] = []
    for word, _, quoted in tokens:
        if word in {_OPENS, _CLOSES, _ENDS} and not quoted:
            return words, word
        if quoted or not word.startswith("#"):
            words.append(word)
    return words, ""
