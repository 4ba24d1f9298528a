"""`python -m bench`: the command line of the measurement."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from bench.command_line import execute
from bench.images import TagError, Tagger
from bench.measure import Measurement, measure
from bench.report import Circumstances, MarkersMissingError, render, replace_section
from bench.workspace import CommandError, Workspace
from devcluster import cluster, machine
from devcluster.errors import Refused
from devcluster.failure import SetupError
from devcluster.instance import KUBERNETES_VERSION, MAXIMUM_ID, Instance
from devcluster.progress import Progress
from devcluster.tooltable import KUBERNETES_PROVIDER, PULUMI

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
NUMBERS = (6, 3)
"""Which clusters are tried, when none is asked for: not those of the tests."""
LARGEST = 999
InstanceId = Annotated[
    int | None,
    typer.Option("--id", min=0, max=MAXIMUM_ID, help="Number of the cluster; without it, one that is free."),
]
HELP = """Time `pulumi preview` and `pulumi up` of one project's new tag in small and large stacks, beside kubectl.

It brings up an embedded cluster of its own (root on Linux) and removes it at the end. One that is there already is
used, and left on or off as it was. Only the namespace package-bench is made anew there.
Times depend on the machine and on what else it does: read the ratios.
"""


def run(  # noqa: PLR0913 - one parameter for each option
    sizes: Annotated[str, typer.Option(help="Projects of the stack, with commas.")] = "8,80,200",
    rounds: Annotated[int, typer.Option(min=1, max=50, help="How often each command is timed.")] = 3,
    provider: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, resolve_path=True, help="Another pulumi-resource-kubernetes."),
    ] = None,
    instance_id: InstanceId = None,
    *,
    pods: Annotated[bool, typer.Option(help="Time the release with two real pods as well.")] = True,
    write: Annotated[bool, typer.Option("--write", help="Put the tables into docs/benchmarks.md.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster up.")] = False,
) -> None:
    """Measure and print."""
    counts = parse_sizes(sizes)
    progress = Progress()
    load = os.getloadavg()[0]
    with running_cluster(instance_id, progress, keep=keep) as instance:
        workspace = Workspace.create(instance, provider)
        with progress.step("stack init"):
            workspace.init()
        measurement = Measurement(workspace, Tagger(instance.registry_endpoint), progress, rounds)
        report = ""
        for results in measure(measurement, counts, _circumstances(load, rounds, provider), pods=pods):
            report = render(results, load_end=os.getloadavg()[0])
            # After each size, so that an interrupted run leaves what it found.
            if write:
                DOCUMENT.write_text(replace_section(DOCUMENT.read_text(encoding="utf-8"), report), encoding="utf-8")
    print(report)


def parse_sizes(text: str) -> list[int]:
    """Return the sizes of a list such as `8,80,200`, rising and each once.

    Raises:
        Refused: It is no such list.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) <= LARGEST for word in words):
        raise Refused([f"--sizes {text!r} is no list of project counts: write 8,80,200, each from 1 to {LARGEST}"])
    return sorted({int(word) for word in words})


@contextlib.contextmanager
def running_cluster(number: int | None, progress: Progress, *, keep: bool) -> Generator[Instance]:
    """Have the cluster of that number up meanwhile, or a free one; afterwards it is on, off or gone as it was before.

    Raises:
        Refused: This machine cannot carry it.
        SetupError: Something did not come up.
    """
    instance = cluster.reserve(ROOT, NUMBERS if number is None else [number])
    # A cluster that is down has its state still.
    was_on, had_state = any(machine.is_on(each) for each in instance.machines), instance.state.exists()
    try:
        cluster.up(instance, progress)
        yield instance
    finally:
        if not keep and not was_on:
            cluster.down(instance, progress, wipe=not had_state)


def _circumstances(load: float, rounds: int, provider: Path | None) -> Circumstances:
    versions = {
        "Kubernetes": KUBERNETES_VERSION,
        "Pulumi CLI": PULUMI.removeprefix("v"),
        "Kubernetes provider": _provider_version(provider) if provider else KUBERNETES_PROVIDER.removeprefix("v"),
        "Python": platform.python_version(),
        "pulumi": version("pulumi"),
        "pulumi-kubernetes": version("pulumi-kubernetes"),
    }
    return Circumstances(
        date=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        load=load,
        versions=versions,
        rounds=rounds,
    )


def _provider_version(provider: Path) -> str:
    """Return what another provider's Go build information says of its version."""
    finished = subprocess.run(["go", "version", "-m", provider], capture_output=True, text=True, check=False)
    words = [line.split() for line in finished.stdout.splitlines()]
    found = [line[2] for line in words if len(line) > 2 and "pulumi-kubernetes/provider" in line[1]]  # noqa: PLR2004
    return f"{found[0] if found else 'of unknown version'} (given by --provider)"


def main() -> None:
    """Run the command line; errors are lines on standard error and an exit code."""
    execute(run, HELP, (SetupError, CommandError, TagError, MarkersMissingError))


if __name__ == "__main__":
    main()
