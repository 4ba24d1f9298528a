"""The stages of our Jenkinsfiles, for the job runner that stands where Jenkins stands.

No Groovy is run: our Jenkinsfiles have one form, a command per stage and at most a condition on the job's parameters,
and nothing else is understood. What they do `post` a build (a message to a chat) is not read.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_STAGE = re.compile(r"^\s*stage\('(?P<name>[^']+)'\)", re.MULTILINE)
_COMMAND = re.compile(r"^\s*sh '(?P<command>[^'\n]+)'\s*$", re.MULTILINE)
_CONDITION = re.compile(r"\bexpression \{ (?P<condition>[^{}\n]+) \}")
_VARIABLE = re.compile(r"^\s*(?P<name>[A-Z_]+) = '(?P<value>[^'\n]*)'\s*$", re.MULTILINE)


class UnknownFormError(ValueError):
    """A Jenkinsfile has not the form that is understood here."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: for people.
        command: given to a shell.
        condition: in Groovy; empty for a stage of every build.
    """

    name: str
    command: str
    condition: str = ""

    def applies(self, parameters: Mapping[str, str]) -> bool:
        """Tell whether it is part of a build with these parameters.

        Raises:
            UnknownFormError: The condition is more than comparisons of parameters with texts.
        """
        if not self.condition:
            return True
        text = self.condition.replace("&&", " and ").replace("||", " or ")
        try:
            return _value(ast.parse(text.strip(), mode="eval").body, parameters) is True
        except (SyntaxError, KeyError) as error:
            raise UnknownFormError(f"stage {self.name}: `{self.condition}` is not understood: {error}") from None


@dataclass(frozen=True)
class Pipeline:
    """What a Jenkinsfile does.

    Args:
        stages: in their order.
        variables: with plain text as their value; those that Jenkins computes are the runner's business.
    """

    stages: tuple[Stage, ...]
    variables: Mapping[str, str]


def parse(file: Path) -> Pipeline:
    """Read a Jenkinsfile.

    Raises:
        UnknownFormError: It has no stage, or one without exactly one command.
    """
    text = file.read_text(encoding="utf-8").partition("\n    post {")[0]
    head, *parts = re.split(r"(?=^\s*stage\()", text, flags=re.MULTILINE)
    stages: list[Stage] = []
    for part in parts:
        name, found = _STAGE.match(part), _COMMAND.findall(part)
        conditions = _CONDITION.findall(part)
        if name is None or len(found) != 1 or len(conditions) != len(re.findall(r"\bwhen\b", part)):
            first = part.strip().splitlines()[0]
            raise UnknownFormError(
                f"{file.name}: {first} has {len(found)} commands and {len(conditions)} conditions: one `sh '…'` is "
                "understood, and one `expression`"
            )
        stages.append(Stage(name["name"], found[0], "".join(conditions)))
    if not stages:
        raise UnknownFormError(f"{file.name}: has no stage('…')")
    return Pipeline(tuple(stages), {found["name"]: found["value"] for found in _VARIABLE.finditer(head)})


def _value(node: ast.expr, parameters: Mapping[str, str]) -> str | bool:
    """Return what an expression is: `params.X == 'text'`, and those joined."""
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(each, parameters) is True for each in values)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_value(each, parameters) is True for each in values)
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            return _value(left, parameters) == _value(right, parameters)
        case ast.Attribute(value=ast.Name(id="params"), attr=name):
            return parameters[name]
        case ast.Constant(value=str(text)):
            return text
        case _:
            raise SyntaxError(f"{ast.unparse(node)}")
