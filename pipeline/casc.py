"""A fresh Jenkins as one file: Jenkins Configuration as Code (https://plugins.jenkins.io/configuration-as-code). Pure.

Values like ``${name}`` are read by that plugin from files of that name below ``$SECRETS`` (``/run/secrets``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline import jenkins_xml

PLUGINS = (
    "configuration-as-code",
    "credentials-binding",
    "generic-webhook-trigger",
    "git",
    "matrix-auth",
    "pipeline-input-step",
    "pipeline-model-definition",
    "pipeline-stage-view",
    "plain-credentials",
    "workflow-aggregator",
)
"""What the jobs and the file need, for ``jenkins-plugin-cli --plugin-file``."""
SIGNATURE_HEADER = "X-Gitea-Signature"
"""Header with the hexadecimal HMAC-SHA256 of the body: https://docs.gitea.com/usage/webhooks."""
ENVIRONMENTS = jenkins_xml.STACKS

Json = dict[str, Any]


def configuration(url: str, jobs: Iterable[str], projects: Iterable[str], config_repository: str) -> Json:
    """Return the whole configuration.

    Args:
        url: Root of the server.
        jobs: Repositories whose webhooks start a job, the config repository among them.
        projects: Gitea projects, each of which has an account of its own in every environment.
        config_repository: Whose job releases any project, in the first environment alone.
    """
    names = list(jobs)
    return {
        "jenkins": {
            "numExecutors": 0,
            "authorizationStrategy": {"globalMatrix": {"entries": _rights()}},
            "crumbIssuer": {"standard": {"excludeClientIPFromCrumb": False}},
        },
        "unclassified": {
            "location": {"url": f"{url}/"},
            # A webhook is taken only with the signature of one of the repositories' secrets.
            "whitelist": {"enabled": True, "whitelistItems": [_signed(name) for name in names]},
        },
        "credentials": {
            "system": {
                "domainCredentials": [{"credentials": _credentials(names, projects, config_repository)}],
            }
        },
    }


def _rights() -> list[Json]:
    return [
        {"group": {"name": "administrators", "permissions": ["Overall/Administer"]}},
        {
            "group": {
                "name": "authenticated",
                "permissions": ["Overall/Read", "Job/Read", "Job/Build", "Job/Cancel", "View/Read"],
            }
        },
    ]


def _signed(name: str) -> Json:
    return {
        "hmacEnabled": True,
        "hmacHeader": SIGNATURE_HEADER,
        "hmacAlgorithm": "HmacSHA256",
        "hmacCredentialId": jenkins_xml.secret_credential(name),
    }


def _credentials(repositories: list[str], projects: Iterable[str], config_repository: str) -> list[Json]:
    webhooks = [
        _text(credential(name))
        for name in repositories
        for credential in (jenkins_xml.token_credential, jenkins_xml.secret_credential)
    ]
    kubeconfigs = [_file(f"kubeconfig-{stack}-{name}") for name in projects for stack in ENVIRONMENTS]
    kubeconfigs.append(_file(f"kubeconfig-{ENVIRONMENTS[0]}-{config_repository}"))
    return [
        {
            "usernamePassword": {
                "scope": "GLOBAL",
                "id": jenkins_xml.GITEA_CREDENTIAL,
                "description": "reads the program's repository",
                "username": "jenkins",
                "password": "${gitea-token}",
            }
        },
        _text("gitea-token"),
        *(_text(f"pulumi-passphrase-{stack}") for stack in ENVIRONMENTS),
        *webhooks,
        *kubeconfigs,
    ]


def _text(name: str) -> Json:
    return {"string": {"scope": "GLOBAL", "id": name, "description": name, "secret": f"${{{name}}}"}}


def _file(name: str) -> Json:
    secret = f"${{base64:${{{name}}}}}"
    return {
        "file": {"scope": "GLOBAL", "id": name, "description": name, "fileName": "kubeconfig", "secretBytes": secret}
    }
