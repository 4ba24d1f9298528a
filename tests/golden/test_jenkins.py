"""The jobs and views as jenkins-job-builder renders them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from pipeline import jenkins_xml
from pipeline.settings import Program

PROGRAM = Program(Path(__file__).parents[2])
JOBS = jenkins_xml.jobs_xml(PROGRAM.settings, PROGRAM.projects())
VIEWS = jenkins_xml.views_xml(PROGRAM.projects())


class Xml(SingleFileSnapshotExtension):
    """One file per job."""

    _write_mode = WriteMode.TEXT
    file_extension = "xml"


@pytest.mark.parametrize("name", JOBS)
def test_job(name: str, snapshot: SnapshotAssertion) -> None:
    assert snapshot(name=f"jobs-{name}", extension_class=Xml) == JOBS[name]


@pytest.mark.parametrize("name", VIEWS)
def test_view(name: str, snapshot: SnapshotAssertion) -> None:
    assert snapshot(name=f"views-{name}", extension_class=Xml) == VIEWS[name]


def test_a_job_for_every_project_and_for_the_config_repository() -> None:
    assert set(JOBS) == {*PROGRAM.names, "config"}


def test_a_job_is_started_by_its_own_repository_and_release_branch_alone() -> None:
    found = re.search(r"<regexpFilterExpression>(.+)</regexpFilterExpression>", JOBS["SJZY.Package.Api"])
    assert found
    expression = re.compile(found[1])
    commit, owner = "4f2a9c1" * 5 + "01234", PROGRAM.settings.gitea.owner
    assert expression.search(f"{owner}/SJZY.Package.Api refs/heads/main {commit}")
    for other in (
        f"{owner}/SJZY.Package.Task.Api refs/heads/main {commit}",
        f"{owner}/SJZYxPackage.Api refs/heads/main {commit}",
        f"{owner}/SJZY.Package.Api refs/heads/main2 {commit}",
        f"{owner}/SJZY.Package.Api refs/tags/main {commit}",
        f"{owner}/SJZY.Package.Api refs/heads/main {'0' * 40}",
        f"{owner}/SJZY.Package.Api refs/heads/main x; rm -rf /",
    ):
        assert not expression.search(other), other


def test_no_job_holds_a_secret() -> None:
    for xml in JOBS.values():
        assert "<token/>" in xml
        assert len(re.findall("<tokenCredentialId>webhook-token-[^<]+<", xml)) == 1
