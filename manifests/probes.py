"""Probes of a container, from the project's three questions."""

from manifests import Manifest
from model.project import Probe, Project

_PORT_NAME = "http"


def probes(project: Project) -> Manifest:
    """Return the container's ``startupProbe``, ``readinessProbe`` and ``livenessProbe``."""
    return {
        "startupProbe": _probe(project.probes.startup),
        "readinessProbe": _probe(project.probes.readiness),
        "livenessProbe": {
            **_probe(project.probes.liveness),
            "terminationGracePeriodSeconds": project.probes.liveness.termination_grace_period_seconds,
        },
    }


def _probe(probe: Probe) -> Manifest:
    return {
        "httpGet": {"path": probe.path, "port": _PORT_NAME},
        "periodSeconds": probe.period_seconds,
        "timeoutSeconds": probe.timeout_seconds,
        "failureThreshold": probe.failure_threshold,
    }
