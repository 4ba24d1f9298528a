"""The stages of our Jenkinsfiles, for the job runner that stands where Jenkins stands.

No Groovy is run: our Jenkinsfiles have one form, a command per stage, and nothing else is understood.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_STAGE = re.compile(r"^\s*stage\('(?P<name>[^']+)'\)", re.MULTILINE)
_COMMAND = re.compile(r"^\s*sh '(?P<command>[^'\n]+)'\s*$", re.MULTILINE)
_VARIABLE = re.compile(r"^\s*(?P<name>[A-Z_]+) = '(?P<value>[^'\n]*)'\s*$", re.MULTILINE)


class UnknownFormError(ValueError):
    """A Jenkinsfile has not the form that is understood here."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: for people.
        command: given to a shell.
    """

    name: str
    command: str


@dataclass(frozen=True)
class Pipeline:
    """What a Jenkinsfile does.

    Args:
        stages: in their order.
        variables: with plain text as their value; those that Jenkins computes are the runner's business.
    """

    stages: tuple[Stage, ...]
    variables: dict[str, str]


def parse(file: Path) -> Pipeline:
    """Read a Jenkinsfile.

    Raises:
        UnknownFormError: It has no stage, or one without exactly one command.
    """
    text = file.read_text(encoding="utf-8").partition("\n    post {")[0]
    head, *parts = re.split(r"(?=^\s*stage\()", text, flags=re.MULTILINE)
    stages: list[Stage] = []
    for part in parts:
        name, commands = _STAGE.match(part), _COMMAND.findall(part)
        if name is None or len(commands) != 1:
            first = part.strip().splitlines()[0]
            raise UnknownFormError(
                f"{file.name}: {first} has {len(commands)} commands: exactly one `sh '…'` is understood"
            )
        stages.append(Stage(name["name"], commands[0]))
    if not stages:
        raise UnknownFormError(f"{file.name}: has no stage('…')")
    return Pipeline(tuple(stages), {found["name"]: found["value"] for found in _VARIABLE.finditer(head)})
