"""Migrations on a real cluster: once for each release, before its pods, and nobody goes back past one unasked."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.images import TAGS
from model.release import RECORD_ANNOTATION
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request
from tests.cluster.program import Program
from tests.cluster.releasing import Release
from tests.cluster.test_strategies import record_of

API = "SJZY.Package.Api"
NAME = "sjzy-package-api"
RATE = 50
HEAD_START_SECONDS = 2.0

pytestmark = pytest.mark.soak


def forget(program: Program, cluster: Cluster) -> None:
    """Let the project's record know nothing but what runs: tags that other tests have released are new again."""
    record = record_of(program, NAME)
    fresh = record.model_copy(update={"history": record.history[:1], "migrated": None})
    annotation = f"{RECORD_ANNOTATION}={fresh.to_annotation()}"
    cluster.kubectl("annotate", f"--namespace={program.namespace}", "--overwrite", "service", NAME, annotation)
    program.refresh()
    # Pulumi's own note of what it declared last is the longer record: it is written anew.
    program.up()


@pytest.fixture
def release(program: Program, cluster: Cluster) -> Iterator[Release]:
    """The command, for a project that migrates; afterwards the stack file wants what runs."""
    files = program.projects()
    forget(program, cluster)
    program.append(API, "migrate: [/backend, migrate]\n")
    command = Release(program)
    yield command
    command.wait_until_gone()
    command("sync")
    program.restore_projects(files)
    # Other tests go back and forth, and are not to be asked about a migration.
    forget(program, cluster)


@pytest.fixture
def load(program: Program, cluster: Cluster, tmp_path: Path) -> Load:
    url, host = program.url(API)
    return Load(cluster, tmp_path / "load", [Request(url, host), Request(url, host, "POST")], RATE)


def jobs(program: Program) -> dict[str, Any]:
    """Return the project's Jobs: name → unique id."""
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in program.get("jobs")}


def test_a_release_migrates_once_and_its_rollback_asks(program: Program, release: Release, load: Load) -> None:
    before, after = program.tags[API], program.other_tag(API)
    program.up("--expect-no-changes")
    with load:
        time.sleep(HEAD_START_SECONDS)
        made = release("deploy", API, after)
        first = jobs(program)
        again = release("deploy", API, after)
        refused = release("rollback", API, code=2)
        undone = release("rollback", API, "--past-migration")
        forth = release("deploy", API, after)
        program.wait_until_settled()
        load.until(1000)
    results = load.results()
    assert not results.failed, results.summary()
    assert made.progress.count("the database is migrated") == 1, made.progress
    assert made.progress.index("the database is migrated") < made.progress.index("Deployment"), made.progress
    assert len(first) == 1
    assert jobs(program) == first, "neither the same release, nor going back, nor coming again has run one"
    assert all("the database is migrated" not in each.progress for each in (again, undone, forth))
    assert f"from before the migration of {after}" in refused.progress
    assert "--past-migration" in refused.progress
    assert undone.said["live"] == before
    migrated = record_of(program, NAME).migrated
    assert migrated is not None
    assert (migrated.release.tag, migrated.job) == (after, next(iter(first)))
    program.set_tag(API, after)
    program.up("--expect-no-changes")


def test_a_failed_migration_stops_the_release_before_its_pods(program: Program, release: Release, load: Load) -> None:
    before = program.tags[API]
    with load:
        time.sleep(HEAD_START_SECONDS)
        failed = release("deploy", API, "bad-migration", code=1)
        load.until(500)
    results = load.results()
    assert not results.failed, results.summary()
    assert results.tags == [before]
    assert failed.said["failure"]["reason"] == "MigrationFailed"
    assert any("duplicate column name" in line for line in failed.said["details"])
    assert failed.said["restored"] is True
    assert jobs(program) == {}
    assert record_of(program, NAME).migrated is None


def test_plain_up_migrates_and_tries_a_failed_one_again_after_a_refresh(program: Program, release: Release) -> None:
    before = program.tags[API]
    program.set_tag(API, "bad-migration")
    first = program.up(check=False)
    assert first.returncode != 0
    failed = jobs(program)
    program.refresh()
    second = program.up(check=False)
    assert second.returncode != 0
    assert jobs(program).keys() - failed.keys(), "another attempt has another name"
    assert record_of(program, NAME).release.tag == before
    program.set_tag(API, next(tag for tag in TAGS if tag != before))
    program.up()
    assert len(jobs(program)) == 1
    program.up("--expect-no-changes")
    program.refresh()
    program.up("--expect-no-changes")
    assert release("status", API).said["projects"][0]["drift"] == []
