"""The embedded cluster for tests: one for the whole session, and a spare number for what is taken apart.

`PACKAGE_PLATFORM_TEST_ID` chooses the instance (the two after it are used as well); without it, it is the first that
no other checkout has, so that two runs on one machine do not meet.
`PACKAGE_PLATFORM_TEST_KEEP=1` leaves the session's cluster up and takes it as it is the next time.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import reserve
from devcluster.instance import Instance
from devcluster.process_tree import heed_interrupts
from tests.cluster.embedded import Cluster, devcluster
from tests.cluster.program import Program, purge
from tests.cluster.releasing import Release

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NUMBERS = (7, 4, 1)
KEEP = os.environ.get("PACKAGE_PLATFORM_TEST_KEEP") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder; without root on Linux it is skipped, but never in CI."""
    usable = sys.platform == "linux" and os.geteuid() == 0
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)
            if not usable and os.environ.get("CI") != "true":
                item.add_marker(pytest.mark.skip(reason="the embedded cluster needs root on Linux"))


@pytest.fixture(scope="session")
def reserved() -> Iterator[Instance]:
    """The session's number, with two more after it; nothing is up yet."""
    heed_interrupts()
    wanted = os.environ.get("PACKAGE_PLATFORM_TEST_ID")
    instance = reserve(ROOT, [int(wanted)] if wanted else NUMBERS, more=2)
    try:
        yield instance
    finally:
        if not KEEP:
            devcluster(instance, "down", "--wipe")


@pytest.fixture(scope="session")
def cluster(reserved: Instance) -> Cluster:
    """A whole embedded cluster: three nodes, DNS, ingress, registry with the sample images."""
    devcluster(reserved, "up")
    return Cluster(reserved)


@pytest.fixture
def spare(reserved: Instance) -> Iterator[Instance]:
    """A number for a test that brings its own cluster up and down; nothing is left of it."""
    instance = reserved.neighbour(1)
    devcluster(instance, "down", "--wipe")
    try:
        yield instance
    finally:
        devcluster(instance, "down", "--wipe")


@pytest.fixture(scope="session")
def deployed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, dict[str, str]]:
    """The stack `test` with all eight projects, and the files that every test begins with.

    They are the committed ones; one back end also answers at /call, by which the sample calls another service, and
    another does as it is told: it crashes, hangs, or fills its disk.
    """
    purge(cluster)
    program = Program.create(cluster, tmp_path_factory.mktemp("program") / "copy", "test")
    program.add_route("SJZY.Package.Api", "api", "/call")
    program.append("SJZY.Package.Output.Api", 'env: {CONTROL: "on"}\n')
    program.up()
    return program, program.files()


@pytest.fixture
def program(deployed: tuple[Program, dict[str, str]]) -> Program:
    """The stack `test`, at rest and with the files that every test begins with."""
    program, files = deployed
    program.settle(files)
    return program


@pytest.fixture
def release(program: Program) -> Iterator[Release]:
    """The command `release` for the stack `test`; afterwards the stack file wants what runs, as other tests expect."""
    command = Release(program)
    yield command
    command.wait_until_gone()
    command("sync")
