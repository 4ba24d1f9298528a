"""The Job of a migration: the application's own container with another command, beside no traffic. Pure.

Its pods carry neither the label ``slot`` nor ``release``, so no Service, Deployment or disruption budget knows them.
It has no ``ttlSecondsAfterFinished``: it stays until the next one, as the stack's state says, and so does its log.
"""

from manifests import Manifest
from manifests.expansion import literal
from manifests.labels import annotations, labels, object_annotations, version_label
from model.environment import Environment
from model.migration import migrated
from model.project import BackendProject, Migration
from model.release import Migrated
from model.stack import Application

_OF_A_SERVER = ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle")


def migration_of(application: Application) -> Migration | None:
    """Return how a project migrates, None where it does not."""
    project = application.project
    return project.migrate if isinstance(project, BackendProject) else None


def noted_migration(application: Application) -> Migrated | None:
    """Return what the project's next record says of migrations."""
    wanted = migration_of(application)
    if application.action != "release":
        return application.record.migrated if application.record else None
    canary = application.canary_release if application.project.strategy == "canary" else None
    command = wanted.command if wanted else None
    return migrated(application.record, application.name, application.release, canary, command, application.failed_jobs)


def migration_job(
    application: Application, environment: Environment, note: Migrated, container: Manifest, pod: Manifest
) -> Manifest | None:
    """Return the Job of a migration, None where the project has none.

    Args:
        application: The project, with the image that migrates.
        environment: Where it runs.
        note: What the record says of it.
        container: The application's container.
        pod: The application's pod, whose account, rights and volumes it shares.
    """
    wanted = migration_of(application)
    if wanted is None or not note.job:
        return None
    own_labels = {**labels(application, environment.name), **version_label(application)}
    own = {key: value for key, value in container.items() if key not in _OF_A_SERVER}
    shared = {key: value for key, value in pod.items() if key != "topologySpreadConstraints"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": note.job,
            "namespace": environment.namespace,
            "labels": own_labels,
            "annotations": object_annotations(application),
        },
        "spec": {
            "backoffLimit": wanted.backoff_limit,
            "activeDeadlineSeconds": wanted.active_deadline_seconds,
            "template": {
                "metadata": {"labels": dict(own_labels), "annotations": annotations(application)},
                "spec": {
                    **shared,
                    "restartPolicy": "Never",
                    "containers": [{**own, "command": [literal(each) for each in wanted.command]}],
                },
            },
        },
    }
