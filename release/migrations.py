"""Migrations as a release sees them: the Job's log while it runs, its failure, and what lies behind one.

A migration is not undone by going back. Whoever goes back past one is told, and asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import typer

from model.migration import JOB_SUFFIX, noted
from model.project import BackendProject
from model.release import Record, Release, has_failed
from model.stack import Application
from release.cluster import Cluster
from release.diagnosis import Hopeless
from release.errors import RefusedError
from release.objects import Object, condition, first, inner, items, name_of, uid_of
from release.screen import Screen

JOB_LABEL = "batch.kubernetes.io/job-name"
"""Kubernetes' own label of a Job's pods."""

Ask = Callable[[str], bool]
"""Asks a person, and returns whether the answer was yes."""


def migrates(application: Application) -> bool:
    """Tell whether a project's releases migrate."""
    return isinstance(application.project, BackendProject) and application.project.migrate is not None


@dataclass(frozen=True)
class Leave:
    """Leave to go back past migrations.

    Args:
        given: Whether it was given beforehand.
        ask: How a person is asked; None where there is nobody.
    """

    given: bool = False
    ask: Ask | None = None

    @classmethod
    def of_terminal(cls, *, given: bool) -> Leave:
        """Ask a person at the terminal, if there is one."""
        present = sys.stdin.isatty() and sys.stderr.isatty()
        return cls(given, _confirmed if present else None)

    def asked(self, project: str, record: Record | None, wanted: Release) -> Leave:
        """Return the leave for one change, after asking for it where it is needed.

        Raises:
            RefusedError: If it is needed, and was not given.
        """
        migration = record.migration_after(wanted) if record else None
        if migration is None or self.given:
            return self
        if self.ask and self.ask(f"{_past(project, wanted, migration)} Go back?"):
            return Leave(given=True)
        raise _refusal(project, wanted, migration)

    def check(self, project: str, record: Record | None, wanted: Release) -> None:
        """Make sure, when the stack is held, that what was asked for is still what is needed.

        Raises:
            RefusedError: If it is not.
        """
        migration = record.migration_after(wanted) if record else None
        if migration and not self.given:
            raise _refusal(project, wanted, migration)


def _past(project: str, wanted: Release, migration: Release) -> str:
    return (
        f"{project} {wanted.tag} is from before the migration of {migration.tag}, which is not undone: "
        "it would run with data of a later form."
    )


def _refusal(project: str, wanted: Release, migration: Release) -> RefusedError:
    return RefusedError(
        [_past(project, wanted, migration), "if it can do with that: the same command with --past-migration"]
    )


def _confirmed(question: str) -> bool:
    return typer.confirm(question, default=False, err=True)


@dataclass
class MigrationWatch:
    """Looks at a project's Jobs while a release runs.

    Args:
        cluster: Where they are.
        screen: Is told what they log.
        name: The project's name in Kubernetes.
        image: The reference that the migration runs.
        known: Unique ids of Jobs and pods that are none of this release.
    """

    cluster: Cluster
    screen: Screen
    name: str
    image: str
    known: Collection[str] = ()
    _told: dict[str, int] = field(default_factory=dict[str, int], init=False)

    def look(self, pods: Sequence[Object]) -> tuple[list[Object], Hopeless | None]:
        """Tell what was logged since the last look.

        Args:
            pods: All of the project.

        Returns:
            The pods of the migration, and why it has failed; None while it has not.

        Raises:
            ClusterError: If the API server does not answer.
        """
        ours = [pod for pod in pods if uid_of(pod) not in self.known and _runs(pod, self.image)]
        for pod in ours:
            self._tell(pod)
        for job in self.cluster.jobs(self.name):
            if uid_of(job) not in self.known and has_failed(job):
                return ours, self._failure(job, [pod for pod in ours if _job_of(pod) == name_of(job)])
        return ours, None

    def _tell(self, pod: Object) -> None:
        status = first(items(inner(pod, "status"), "containerStatuses"), "name", self.name)
        if not inner(status, "state", "running") and not inner(status, "state", "terminated"):
            return
        lines = self.cluster.log(name_of(pod), self.name, None, previous=False)
        for line in lines[self._told.get(uid_of(pod), 0) :]:
            self.screen.line(f"migrate: {line}")
        self._told[uid_of(pod)] = max(len(lines), self._told.get(uid_of(pod), 0))

    def _failure(self, job: Object, pods: Sequence[Object]) -> Hopeless:
        failed = condition(job, "Failed")
        message = f"{failed.get('reason', '')}: {failed.get('message', '')}"
        if not pods:
            return Hopeless("MigrationFailed", message, uid=uid_of(job))
        pod = max(pods, key=lambda each: str(inner(each, "metadata").get("creationTimestamp", "")))
        ended = inner(first(items(inner(pod, "status"), "containerStatuses"), "name", self.name), "state", "terminated")
        code = f"exit code {ended['exitCode']}; " if "exitCode" in ended else ""
        return Hopeless("MigrationFailed", f"{code}{message}", name_of(pod), uid_of(pod), self.name)


def known_uids(cluster: Cluster, name: str) -> frozenset[str]:
    """Return the unique ids of a project's Jobs that are there, and of their pods."""
    pods = [pod for pod in cluster.pods(name) if _job_of(pod)]
    return frozenset(uid_of(each) for each in (*cluster.jobs(name), *pods))


def failed_jobs(cluster: Cluster, name: str) -> tuple[str, ...]:
    """Return the names of a project's Jobs that have failed."""
    return tuple(sorted(name_of(job) for job in cluster.jobs(name) if has_failed(job)))


def with_what_ran(record: Record, cluster: Cluster, application: Application, release: Release) -> Record:
    """Return the record to go back to, with the migration that a failed release has run.

    Args:
        record: What ran before the release.
        cluster: Where the Job is.
        application: The project, with any image.
        release: The one that failed.

    Raises:
        ClusterError: If the API server does not answer.
    """
    image = application.running(release).image
    noted_job = record.migrated.job if record.migrated else ""
    for job in cluster.jobs(application.name):
        name = name_of(job)
        ran = condition(job, "Complete").get("status") == "True" and image and _runs_image(job, image.reference)
        if ran and name != noted_job and name.startswith(f"{application.name}-{JOB_SUFFIX}-"):
            return record.model_copy(update={"migrated": noted(record, release, name, record.release)})
    return record


def _runs_image(job: Object, reference: str) -> bool:
    return _has_image(inner(job, "spec", "template", "spec"), reference)


def _runs(pod: Object, reference: str) -> bool:
    return bool(_job_of(pod)) and _has_image(inner(pod, "spec"), reference)


def _has_image(spec: Object, reference: str) -> bool:
    return any(each.get("image") == reference for each in items(spec, "containers"))


def _job_of(pod: Object) -> str:
    return str(inner(pod, "metadata", "labels").get(JOB_LABEL, ""))
