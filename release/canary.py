"""A canary: a second release of a project that gets a part of its traffic, until it is promoted or given up.

What is wished stands in the stack file (``package-platform:canaries``), which the commands write when it has come true;
commit it. What runs is the project's record, so a promotion needs no file to know what it promotes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from model.fields import plain_mapping
from model.plan import CanaryWish
from model.release import Record, Release
from model.stack import Application
from release.change import Wish
from release.commands import Made, Session, absent, answered, make, pinned, unpinned
from release.errors import BROKEN, DONE, RefusedError, ReleaseError
from release.inputs import CANARIES, TAGS, Program
from release.pulumi import Pulumi

Check = Callable[[Record | None], None]
"""Is shown a project's record, and raises what speaks against going on."""


class NotWrittenError(ReleaseError):
    """The change was made, but could not be written into the stack file."""

    code = BROKEN

    def __init__(self, why: Sequence[str], way_on: str, made: Made) -> None:
        """Take what a person has to read.

        Args:
            why: What went wrong.
            way_on: What is to be written by hand.
            made: The change.
        """
        super().__init__([*why, way_on])
        self.why = why
        self.made = made


def start(session: Session, project: str, wish: CanaryWish) -> int:
    """Give a release a part of a project's traffic, or another part; returns the exit code.

    Args:
        session: The stack.
        project: Gitea project.
        wish: Tag, weight and header.
    """
    return answered(session, give(session, project, wish))


def promote(session: Session, project: str) -> int:
    """Give a project's canary all of its traffic; returns the exit code."""
    return answered(session, take_over(session, project))


def abort(session: Session, project: str) -> int:
    """Take all traffic from a project's canary, and end it; returns the exit code."""
    return answered(session, give_up(session, project))


def _anything(_: Record | None) -> None:
    """Check nothing."""


def give(session: Session, project: str, wish: CanaryWish, check: Check = _anything) -> Made:
    """Give a release a part of a project's traffic, or another part, and write that into the stack file.

    Args:
        session: The stack.
        project: Gitea project.
        wish: Tag, weight and header.
        check: Is shown the record when the stack is held, and may refuse.
    """
    application = pinned(of_strategy(session.program, project, wish.tag))
    entry = wish.model_dump(exclude_none=True)
    config = {CANARIES: {**_wished(session.program), project: entry}}
    reference = application.image.reference if application.image else ""

    def target(record: Record | None) -> Release:
        check(record)
        return _stays(record)

    live = _live(session, application)
    wanted = Wish("release", target, config, reference, wish.tag, application.release)
    made = make(session, application.running(live), "canary", wanted)
    if made.code == DONE:
        with _written(made, session.program, f"{CANARIES}: {project}: {json.dumps(entry)}"):
            _note(session.program, project, entry)
    return made


def take_over(session: Session, project: str, check: Check = _anything) -> Made:
    """Give a project's canary all of its traffic, and write its tag into the stack file. Arguments as of ``give``."""
    application = of_strategy(session.program, project)

    def found(record: Record | None) -> Release:
        check(record)
        return _canary(session, project, record)

    def target(record: Record | None) -> Release:
        now = found(record)
        if now != chosen:
            raise RefusedError(
                f"another command has changed the canary of {project} meanwhile: it was {chosen.tag}, and is "
                f"{now.tag}; to promote that, run the same command again"
            )
        return now

    with closing(session.cluster()) as cluster:
        chosen = found(cluster.record(application.name))
    missing = absent(application, chosen, session.program.stack)
    if missing:
        raise RefusedError(missing)
    made = make(session, application.running(chosen), "promote", Wish("release", target, _without(session, project)))
    if made.code == DONE:
        with _written(made, session.program, f"{TAGS}: {project}: {chosen.tag}, and nothing of it in {CANARIES}"):
            _write(session.program, "set", "--type=string", f'{TAGS}["{project}"]', chosen.tag)
            _forget(session.program, project)
    return made


def give_up(session: Session, project: str, check: Check = _anything) -> Made:
    """Take all traffic from a project's canary, and end it. Arguments as of ``give``."""
    application = of_strategy(session.program, project)

    def target(record: Record | None) -> Release:
        check(record)
        _canary(session, project, record)
        return _stays(record)

    with closing(session.cluster()) as cluster:
        chosen = target(cluster.record(application.name))
    made = make(session, application.running(chosen), "abort", Wish("release", target, _without(session, project)))
    if made.code == DONE:
        with _written(made, session.program, f"nothing of {project} in {CANARIES}"):
            _forget(session.program, project)
    return made


def of_strategy(program: Program, project: str, tag: str = "") -> Application:
    """Return a project that is released with canaries.

    Args:
        program: The stack.
        project: Gitea project.
        tag: Image tag; empty where it does not matter.

    Raises:
        RefusedError: If its strategy is another one.
    """
    application = program.application(project, tag) if tag else unpinned(program, project)
    strategy = application.project.strategy
    if strategy != "canary":
        raise RefusedError(f"projects/{project}.yaml:strategy: is {strategy}; a canary needs strategy: canary")
    return application


def _live(session: Session, application: Application) -> Release:
    with closing(session.cluster()) as cluster:
        return _stays(cluster.record(application.name))


def _stays(record: Record | None) -> Release:
    if record is None:
        raise RefusedError("the project is not deployed: its first release has no traffic to share")
    return record.release


def _canary(session: Session, project: str, record: Record | None) -> Release:
    slot = record.slots.get("canary") if record else None
    if slot is None:
        way_on = f"release canary {project} TAG -s {session.program.stack} --weight N"
        raise RefusedError(f"{project} has no canary: {way_on}")
    return slot.release


def _wished(program: Program) -> dict[str, Any]:
    return plain_mapping(program.config.get(CANARIES)) or {}


def _without(session: Session, project: str) -> Mapping[str, Any]:
    return {CANARIES: {name: wish for name, wish in _wished(session.program).items() if name != project}}


@contextmanager
def _written(made: Made, program: Program, wanted: str) -> Generator[None]:
    """Say of a failure to write the stack file that the change itself was made, and what is to stand there."""
    try:
        yield
    except ReleaseError as error:
        by_hand = f"what runs is as wished, and {program.stack_file.name} is not: write there by hand: {wanted}"
        raise NotWrittenError(error.lines, by_hand, made) from None


def _note(program: Program, project: str, entry: Mapping[str, Any]) -> None:
    """Make a project's entry of the stack file be this one, without what an earlier one said besides."""
    path = f'{CANARIES}["{project}"]'
    for field, value in entry.items():
        kind = "int" if isinstance(value, int) else "string"
        _write(program, "set", f"--type={kind}", f"{path}.{field}", str(value))
    there = plain_mapping(_wished(program.anew()).get(project)) or {}
    for field in sorted(there.keys() - entry.keys()):
        _write(program, "rm", f"{path}.{field}")


def _forget(program: Program, project: str) -> None:
    # The steps of a canary have written their entry after the file was read.
    if project in _wished(program.anew()):
        _write(program, "rm", f'{CANARIES}["{project}"]')


def _write(program: Program, verb: str, *words: str) -> None:
    Pulumi(program).read("config", verb, "--path", *words, f"--config-file={program.stack_file}")
