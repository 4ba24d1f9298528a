"""`release deploy` of one project in stacks of several sizes, with `kubectl set image` beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Profile, Sample, SizeFigures, Timing
from bench.generated import STACK, GeneratedProject
from bench.measure import Measurement
from bench.release_figures import KUBECTL, RELEASE
from bench.release_profile import profile
from bench.workspace import CommandError

ROOT = Path(__file__).resolve().parent.parent
OTHER = GeneratedProject(2)
"""A back end that kubectl changes. `release` would rightly read its own one anew if kubectl had changed that."""


@dataclass(frozen=True)
class Sized:
    """What was found at one size.

    Args:
        figures: What the commands took.
        profile: A run of `release deploy` that was looked into.
    """

    figures: SizeFigures
    profile: Profile


def measure_sizes(measurement: Measurement, sizes: Sequence[int]) -> Iterator[Sized]:
    """Grow a stack and time the commands at each size, the smallest first.

    Args:
        measurement: Grows the stack.
        sizes: Projects of the stack, rising.

    Raises:
        CommandError: A command failed, or did not do its work.
    """
    for size in sizes:
        measurement.grow(size, proven=False)
        with measurement.progress.step(f"{size} projects: release and kubectl, {measurement.rounds} rounds"):
            before = measurement.workspace.state()[0]
            _release(measurement)  # the first one in a new stack also proves that the copied state is right
            measurement.set_image(OTHER)  # neither of the two is timed the first time
            resources, state_bytes = measurement.workspace.state()
            if resources != before:
                raise CommandError(f"a release of one project made {resources} resources of {before}")
            timings = _rounds(measurement)
        with measurement.progress.step(f"{size} projects: where the time goes"):
            command = _command(measurement, measurement.next_tag())
            workspace = measurement.workspace
            found = profile("`release deploy`, no pods", size, command, workspace.folder, workspace.variables)
        yield Sized(SizeFigures(size, resources, state_bytes, timings), found)


def _rounds(measurement: Measurement) -> dict[str, Timing]:
    found: dict[str, list[Sample]] = {RELEASE: [], KUBECTL: []}
    for number in range(1, measurement.rounds + 1):
        measurement.progress.note(f"round {number}")
        found[RELEASE].append(_release(measurement))
        found[KUBECTL].append(measurement.set_image(OTHER))
    return {command: Timing(tuple(samples)) for command, samples in found.items()}


def _release(measurement: Measurement) -> Sample:
    tag = measurement.next_tag()
    sample = measurement.workspace.timed(_command(measurement, tag))
    measurement.check_live(measurement.chosen, tag)
    return sample


def _command(measurement: Measurement, tag: str) -> tuple[str, ...]:
    folder, project = measurement.workspace.folder, measurement.chosen.gitea_name
    return (str(ROOT / "bin" / "release"), "deploy", project, tag, f"--stack={STACK}", f"--cwd={folder}")
