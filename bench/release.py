"""`python -m bench.release`: a release and a way back by `release`, kubectl, Helm and Argo Rollouts, in one run."""

import contextlib
import os
import platform
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bench.__main__ import DOCUMENT, InstanceId, parse_sizes, running_cluster
from bench.checkpoint import SMALLEST
from bench.command_line import EXIT_FAILED, execute
from bench.contest import Contest, argo_controller
from bench.contestants import CONTESTANTS, GROUPS, Contestant
from bench.figures import Profile, SizeFigures
from bench.images import TagError, Tagger
from bench.measure import Measurement
from bench.release_figures import BEGIN, END, Circumstances, Report, render
from bench.release_sizes import measure_sizes
from bench.report import MarkersMissingError, replace_section
from bench.workspace import CommandError, Workspace
from devcluster.errors import Refused
from devcluster.failure import SetupError
from devcluster.instance import KUBERNETES_VERSION
from devcluster.progress import Progress
from devcluster.tooltable import ARGO_ROLLOUTS, HELM, KUBERNETES_PROVIDER, PULUMI

NO_SIZES = "none"
HELP = """Time a release and a way back by `release`, kubectl, Helm 4 and Argo Rollouts, with the same pods.

It brings up an embedded cluster of its own (root on Linux) and removes it at the end. One that is there already is
used, and left on or off as it was; but all that Pulumi manages there, of every stack, is removed.
For a quick try: --only kubectl,release --rounds 1 --sizes none
"""


@dataclass
class Findings:
    """What was found so far, and where it goes.

    Args:
        report: What there is.
        write: Whether it is put into the documentation after every part, so that an interrupted run leaves something.
    """

    report: Report
    write: bool

    @contextlib.contextmanager
    def part(self, what: str) -> Generator[None]:
        """Note a failure of the body; only an interruption goes on.

        Args:
            what: The body, for people.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
            print(f"FAILED {what}: {error}", flush=True)
            self.report = replace(self.report, notes=(*self.report.notes, f"{what}: {error}"))

    def add_size(self, figures: SizeFigures, profile: Profile) -> None:
        """Add what was found at one size of the stack."""
        sizes, profiles = (*self.report.sizes, figures), (*self.report.profiles, profile)
        self.report = replace(self.report, sizes=sizes, profiles=profiles)
        self.save()

    def save(self) -> str:
        """Return the report, written where it is to be."""
        start, _ = self.report.about.load
        about = replace(self.report.about, load=(start, os.getloadavg()[0]))
        text = render(replace(self.report, about=about))
        if self.write:
            document = DOCUMENT.read_text(encoding="utf-8")
            DOCUMENT.write_text(replace_section(document, text, (BEGIN, END)), encoding="utf-8")
        return text


def run(  # noqa: PLR0913 - one parameter for each option
    only: Annotated[str, typer.Option(help="Who takes part, with commas.")] = ",".join(GROUPS),
    rounds: Annotated[int, typer.Option(min=1, max=20, help="How often each change is made.")] = 3,
    sizes: Annotated[
        str, typer.Option(help=f"Projects of the stack, with commas; {NO_SIZES} leaves it out.")
    ] = "8,80,800",
    rate: Annotated[int, typer.Option(min=2, max=1000, help="Requests a second during a change.")] = 100,
    *,
    provider: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, resolve_path=True, help="Another pulumi-resource-kubernetes."),
    ] = None,
    instance_id: InstanceId = None,
    write: Annotated[bool, typer.Option("--write", help="Put the tables into docs/benchmarks.md.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster up.")] = False,
) -> None:
    """Measure and print."""
    taking_part, counts = parse_only(only), parse_stack_sizes(sizes)
    progress = Progress()
    about = _circumstances(rate, rounds, provider)
    findings = Findings(Report(about, ()), write)
    with running_cluster(instance_id, progress, keep=keep) as instance:
        with findings.part("the contest"):
            hold_contest(Contest.create(instance, progress, rate, provider), taking_part, rounds, findings)
        findings.save()
        if counts and any(each.group == "release" for each in taking_part):
            with findings.part("the stack sizes"):
                workspace = Workspace.create(instance, provider)
                tagger = Tagger(instance.registry_endpoint)
                grow_stack(Measurement(workspace, tagger, progress, rounds), counts, findings)
    print(findings.save())
    if findings.report.notes or any(row.failure for row in findings.report.rows):
        sys.exit(EXIT_FAILED)


def hold_contest(contest: Contest, taking_part: Sequence[Contestant], rounds: int, findings: Findings) -> None:
    """Let everybody release and go back in turn, and look into our own afterwards."""
    contest.build(taking_part)
    try:
        contest.set_up()
        with _controller(contest, taking_part):
            for each in taking_part:
                if contest.alive(each):
                    contest.enter(each)
            for number in range(rounds):
                for each in taking_part:
                    if contest.alive(each):
                        contest.take_turn(each, number)
                findings.report = replace(findings.report, rows=contest.rows(taking_part))
                findings.save()
            if any(each.group == "release" for each in taking_part):
                with findings.part("where the time goes with real pods"):
                    findings.report = replace(findings.report, profiles=tuple(contest.profiles(rounds)))
    finally:
        findings.report = replace(findings.report, rows=contest.rows(taking_part))
        contest.clean_up()


@contextlib.contextmanager
def _controller(contest: Contest, taking_part: Sequence[Contestant]) -> Generator[None]:
    """Have Argo Rollouts' controller run where somebody needs it; without it only these have failed."""
    needing = [each for each in taking_part if each.group == "argo" and contest.alive(each)]
    with contextlib.ExitStack() as stack:
        if needing:
            try:
                stack.enter_context(argo_controller(contest))
            except (CommandError, SetupError, AssertionError, OSError) as error:
                contest.fail(needing, f"its controller: {error}")
        yield


def grow_stack(measurement: Measurement, counts: Sequence[int], findings: Findings) -> None:
    """Time one project's release in stacks of several sizes."""
    workspace, progress = measurement.workspace, measurement.progress
    try:
        with progress.step("stack init"):
            workspace.init()
        for sized in measure_sizes(measurement, counts):
            findings.add_size(sized.figures, sized.profile)
    finally:
        with contextlib.suppress(CommandError), progress.step("the stack's namespace is removed"):
            workspace.remove()


def parse_only(text: str) -> list[Contestant]:
    """Return the contestants of a list such as `kubectl,release`, in the order in which they take their turns.

    Raises:
        Refused: It names somebody else.
    """
    words = {word.strip() for word in text.split(",")}
    if not words <= set(GROUPS):
        raise Refused([f"--only {text!r} names others than {', '.join(GROUPS)}"])
    return [each for each in CONTESTANTS if each.group in words]


def parse_stack_sizes(text: str) -> list[int]:
    """Return the sizes of a list such as `8,80,800`; none for `none`.

    Raises:
        Refused: It is no such list, or a size is too small to copy from.
    """
    if text == NO_SIZES:
        return []
    sizes = parse_sizes(text)
    if sizes[0] < SMALLEST:
        raise Refused([f"--sizes {text!r} begins with {sizes[0]}: at least {SMALLEST} projects are needed"])
    return sizes


def _circumstances(rate: int, rounds: int, provider: Path | None) -> Circumstances:
    versions = {
        "Kubernetes": KUBERNETES_VERSION,
        "Pulumi CLI": PULUMI.removeprefix("v"),
        "Kubernetes provider": "given by --provider" if provider else KUBERNETES_PROVIDER.removeprefix("v"),
        "Python": platform.python_version(),
        "Helm": HELM.removeprefix("v"),
        "Argo Rollouts": ARGO_ROLLOUTS.removeprefix("v"),
    }
    load = os.getloadavg()[0]
    return Circumstances(
        date=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        load=(load, load),
        rate=rate,
        rounds=rounds,
        versions=versions,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are lines on standard error and an exit code."""
    execute(run, HELP, (SetupError, CommandError, TagError, MarkersMissingError, AssertionError), arguments)


if __name__ == "__main__":
    main()
