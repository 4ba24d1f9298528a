"""A project's Jenkins job, and the view of each kind, as the XML that Jenkins keeps. Pure; jenkins-job-builder renders.

Jobs have the Gitea project's name and lie at the top, so that a job's address is its project's: ``/job/packet/``.
https://jenkins-job-builder.readthedocs.io tells every key that is used here.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from model.names import Kind
from model.project import Project
from pipeline.settings import Settings

MARK = "Made from projects/"
"""Begins a job's description: the jobs that are ours, and no others, are ever changed or disabled."""
KEPT_BUILDS = 50
"""Builds whose log stays; the releases themselves are remembered by the cluster and by the registry."""
STACKS = ("test", "uat", "prod")
"""What the parameter ``STACK`` offers, the first one by default."""
GITEA_CREDENTIAL = "gitea"
"""Jenkins' credential (user name and password, or token) that reads the program's repository."""
_VIEWS: Mapping[Kind, str] = {"backend": "back", "frontend": "front"}


@dataclass(frozen=True)
class _Data:
    """What jenkins-job-builder's generator takes."""

    data: Mapping[str, Any]
    context: tuple[()] = ()


def token_credential(name: str) -> str:
    """Return the id of the Jenkins credential with the token that starts a repository's job."""
    return f"webhook-token-{name}"


def secret_credential(name: str) -> str:
    """Return the id of the Jenkins credential with the secret that signs a repository's webhook."""
    return f"webhook-secret-{name}"


def job_xml(settings: Settings, name: str, project: Project) -> str:
    """Return a project's job.

    Args:
        settings: Where the servers are.
        name: Gitea project, and the job's name.
        project: Its file.
    """
    branch = project.build.branch or settings.gitea.branch
    text = f"{MARK}{name}.yaml by `python -m pipeline jobs apply`; changes by hand are lost."
    described = f"{project.description}\n{text}" if project.description else text
    job = _job(settings, name, described, branch)
    return _rendered("job", {**job, "parameters": _parameters()})


def config_job_xml(settings: Settings) -> str:
    """Return the config repository's job, which releases the projects whose files a push changed."""
    name = settings.gitea.config_repository
    text = f"{MARK} for the repository {name} by `python -m pipeline jobs apply`; changes by hand are lost."
    job = _job(settings, name, text, settings.gitea.branch, "pipeline/config.Jenkinsfile")
    return _rendered("job", {**job, "parameters": [_commit()]})


def jobs_xml(settings: Settings, projects: Mapping[str, Project]) -> dict[str, str]:
    """Return every job: name → XML."""
    jobs = {name: job_xml(settings, name, project) for name, project in projects.items()}
    return {**jobs, settings.gitea.config_repository: config_job_xml(settings)}


def views_xml(projects: Mapping[str, Project]) -> dict[str, str]:
    """Return a list view for each kind, called as its folder in the registry: name → XML."""
    return {
        view: _rendered("view", _view(view, [name for name, each in projects.items() if each.kind == kind]))
        for kind, view in _VIEWS.items()
    }


def disabled_xml(xml: str) -> bool:
    """Tell whether a job's XML says that it is disabled."""
    return "<disabled>true</disabled>" in xml


def is_ours(xml: str) -> bool:
    """Tell whether a job was made from a project file."""
    return MARK in xml


def _job(
    settings: Settings, name: str, description: str, branch: str, script: str = "pipeline/Jenkinsfile"
) -> dict[str, Any]:
    gitea = settings.gitea
    repository = f"{gitea.url}/{gitea.owner}/{settings.jenkins.program}.git"
    return {
        "name": name,
        "project-type": "pipeline",
        "description": description,
        "disabled": False,
        "sandbox": True,
        "concurrent": False,
        "properties": [{"build-discarder": {"num-to-keep": KEPT_BUILDS}}],
        "triggers": [{"generic-webhook-trigger": _trigger(name, f"{gitea.owner}/{name}", branch)}],
        "pipeline-scm": {
            "scm": [
                {
                    "git": {
                        "url": repository,
                        "branches": [f"*/{settings.jenkins.branch}"],
                        "credentials-id": GITEA_CREDENTIAL,
                    }
                }
            ],
            "script-path": script,
            "lightweight-checkout": True,
        },
    }


def _trigger(name: str, full_name: str, branch: str) -> dict[str, Any]:
    """Return the trigger: its own token, its own repository, its release branch, and no deleted branch."""
    return {
        "token-credential-id": token_credential(name),
        "print-post-content": False,
        "print-contrib-var": False,
        "silent-response": True,
        "cause": f"push to {full_name}",
        "post-content-params": [
            {"type": "JSONPath", "key": "REF", "value": "$.ref"},
            {"type": "JSONPath", "key": "COMMIT", "value": "$.after"},
            {"type": "JSONPath", "key": "REPOSITORY", "value": "$.repository.full_name"},
        ],
        "regex-filter-text": "$REPOSITORY $REF $COMMIT",
        "regex-filter-expression": f"^{re.escape(full_name)} refs/heads/{re.escape(branch)} (?!0+$)[0-9a-f]+$",
    }


def _commit() -> dict[str, Any]:
    return {
        "string": {
            "name": "COMMIT",
            "default": "",
            "trim": True,
            "description": "Commit to build; the webhook fills it in. Empty: the newest of the release branch.",
        }
    }


def _parameters() -> list[dict[str, Any]]:
    return [
        {
            "string": {
                "name": "TAG",
                "default": "",
                "trim": True,
                "description": "A tag that is in the registry: it is released to STACK alone, and nothing is built. "
                "An earlier one goes back.",
            }
        },
        {
            "choice": {
                "name": "STACK",
                "choices": list(STACKS),
                "description": "How far a new build goes, test first; with TAG the only stack that is released.",
            }
        },
        _commit(),
    ]


def _view(name: str, jobs: Iterable[str]) -> dict[str, Any]:
    return {
        "name": name,
        "view-type": "list",
        "description": f"The projects whose images are below {name}/.",
        "job-name": sorted(jobs),
        "columns": ["status", "weather", "job", "last-success", "last-failure", "last-duration", "build-button"],
    }


def _rendered(kind: str, data: Mapping[str, Any]) -> str:
    # jenkins-job-builder finds its modules by pkg_resources, which warns of itself on import; its modules cost a
    # quarter of a second, which no other command of the pipeline has to wait for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jenkins_jobs.config import JJBConfig  # noqa: PLC0415
        from jenkins_jobs.registry import ModuleRegistry  # noqa: PLC0415
        from jenkins_jobs.xml_config import XmlJobGenerator, XmlViewGenerator  # noqa: PLC0415

        # A person's own jenkins_jobs.ini must not change what is rendered.
        logging.getLogger(JJBConfig.__module__).setLevel(logging.ERROR)
        config: Any = JJBConfig(os.devnull)
        registry: Any = ModuleRegistry(config, [])
        generator: Any = (XmlJobGenerator if kind == "job" else XmlViewGenerator)(registry)
        (made,) = generator.generateXML([_Data(dict(data))])
    return cast("bytes", made.output()).decode()
