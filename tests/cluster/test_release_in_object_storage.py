"""The command `release` with the state in object storage: what a killed run left can't be read there beforehand."""

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.images import TAGS
from release.errors import FAILED
from tests.cluster import object_storage
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request
from tests.cluster.object_storage import CREDENTIALS, Bucket
from tests.cluster.program import Program
from tests.cluster.releasing import Release
from tests.cluster.test_release import killed, moments

API = "SJZY.Package.Api"
NAME = "sjzy-package-api"
NAMESPACE = "package-object-storage"
RATE = 50
WAIT_SECONDS = 60.0
KILLS = 8
"""No more, so that the load does not end before them."""


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket on loopback."""
    with object_storage.bucket(tmp_path / "s3") as made:
        yield made


@pytest.fixture
def program(
    cluster: Cluster, deployed: tuple[Program, dict[str, str]], tmp_path: Path, bucket: Bucket
) -> Iterator[Program]:
    """A stack in the bucket with one blue-green project, whose second colour was never there.

    The ingress is that of the stack `test`.
    """
    platform, files = deployed
    platform.settle(files)
    program = Program.create(cluster, tmp_path / "copy", "uat", {"PULUMI_BACKEND_URL": bucket.url, **CREDENTIALS})
    file = yaml.safe_load(program.stack_file.read_text())
    file["config"]["package-platform:environment"]["namespace"] = NAMESPACE
    file["config"]["package-platform:projects"] = {"include": [API]}
    program.stack_file.write_text(yaml.safe_dump(file, allow_unicode=True, sort_keys=False))
    program.append(API, "strategy: blueGreen\n")
    program.up()
    program.wait_until_settled()
    yield program
    program.pulumi("cancel", "--yes", check=False)
    program.destroy()


@pytest.fixture
def load(program: Program, cluster: Cluster, tmp_path: Path) -> Load:
    """Requests to the project."""
    url, host = program.url(API)
    return Load(cluster, tmp_path / "load", [Request(url, host), Request(url, host, "POST")], RATE)


def colours(program: Program) -> set[str]:
    """Return the names of the Deployments."""
    return {item["metadata"]["name"] for item in program.get("deployments")}


def test_a_release_that_was_killed_while_it_made_pods_is_gone_on_with(
    program: Program, release: Release, load: Load, bucket: Bucket
) -> None:
    before, after = program.tags[API], program.other_tag(API)
    there = colours(program)
    with load:
        time.sleep(1)
        with release.started("deploy", API, after) as process:
            deadline = time.monotonic() + WAIT_SECONDS
            while colours(program) == there:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "no second colour came"
            release.kill_all(process)
            process.communicate()
        (made,) = colours(program) - there
        assert bucket.locks(), "the killed run has left its lock"
        again = release("deploy", API, after)
        undone = release("rollback", API)
        load.until(RATE * 10)
    assert not load.results().failed, load.results().summary()
    assert "is cleared: that process is gone" in again.progress
    # Others of its objects may have been begun at that moment too.
    assert re.search(rf"cut off while .*creating Deployment {made}\b", again.progress), again.progress
    assert (again.said["before"], again.said["live"]) == (before, after)
    assert (undone.said["before"], undone.said["live"]) == (after, before)
    assert "cut off" not in undone.progress
    program.preview("--expect-no-changes")


def test_a_bad_release_is_put_back(program: Program, release: Release) -> None:
    before = program.tags[API]
    answer = release("deploy", API, "bad-crash", code=FAILED)
    assert answer.said["live"] == before
    program.preview("--expect-no-changes")


@pytest.mark.soak
def test_whatever_is_killed_the_next_run_converges(program: Program, release: Release, load: Load) -> None:
    others = [tag for tag in TAGS if tag != program.tags[API]]
    tags = [others[number % len(others)] for number in range(KILLS + 1)]
    began = time.monotonic()
    release("deploy", API, tags[0])
    whole = time.monotonic() - began
    chance = random.Random(7)  # noqa: S311 - moments of a test
    kills = zip(tags[1:], moments(chance, whole)[:KILLS], strict=True)
    with load:
        time.sleep(1)
        met = sum(killed(release, tag, after, everything=number % 2 == 1) for number, (tag, after) in enumerate(kills))
        program.wait_until_settled()
        time.sleep(1)
    assert not load.results().failed, load.results().summary()
    assert met >= KILLS / 2, f"only {met} of {KILLS} kills met a release"
    (status,) = release("status", API).said["projects"]
    assert (status["deployed"], status["drift"]) == (tags[-1], [])
