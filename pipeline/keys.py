"""Secrets of the pipeline: where they come from, and what each webhook's are made of.

Every secret comes by an environment variable, or by a file that ``<variable>_FILE`` names, as Docker's and Kubernetes'
images have it; never as an argument, which every user of the machine can read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import RefusedError

GITEA_TOKEN = "GITEA_TOKEN"  # noqa: S105 - a variable's name
"""Variable with an access token of Gitea: ``read:repository`` to check out, ``write:repository`` and the right of an
administrator of the repositories for ``webhooks apply``."""
WEBHOOK_KEY = "PIPELINE_WEBHOOK_KEY"
"""Variable with the key from which every webhook's secret and token are derived; 32 characters or more."""
SECRET_VARIABLES = (
    GITEA_TOKEN,
    WEBHOOK_KEY,
    "JENKINS_TOKEN",
    "HARBOR_PASSWORD",
    "PIPELINE_NOTIFY_URL",
    "PIPELINE_NOTIFY_SECRET",
    "PULUMI_CONFIG_PASSPHRASE",
    "KUBECONFIG",
)
"""What a project's own build command is not given, each also with ``_FILE``."""
SECRET_PREFIXES = (
    "ALIBABACLOUD_",
    "ALIBABA_CLOUD_",
    "ALICLOUD_",
    "ARM_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "PULUMI_",
    "SOPS_",
    "VAULT_",
)
"""What begins so, a project's own build command is not given either: logins of clouds, of SOPS' key services, and of
the stacks' backend."""
REGISTRY_LOGINS = ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE")
"""Name files with the login that pushes: for the pipeline's own commands, not for a project's."""
BUILD_LOGIN = "PIPELINE_BUILD_DOCKER_CONFIG"
"""Variable with the folder that a project's own build command gets as ``$DOCKER_CONFIG``: a login that only pulls, for
commands that pull private bases by themselves."""
_SHORTEST = 32


def secret(variable: str, what: str) -> str:
    """Return a secret.

    Args:
        variable: Its environment variable; ``<variable>_FILE`` may name a file instead.
        what: What it is, for the error.

    Raises:
        RefusedError: If neither is set, or the file is not readable.
    """
    value = os.environ.get(variable, "")
    file = os.environ.get(f"{variable}_FILE", "")
    if not value and file:
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(f"${variable}_FILE: {file} is not readable: {error}") from None
    if not value:
        raise RefusedError(f"${variable} is not set: give it {what}, or ${variable}_FILE a file with it")
    if not value.isprintable() or " " in value:
        raise RefusedError(f"${variable}: has spaces or unprintable characters: give it {what} alone")
    return value


def for_builds(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment as a project's own build command gets it. Pure."""
    hidden = {BUILD_LOGIN, *REGISTRY_LOGINS}
    hidden |= {name for secret in SECRET_VARIABLES for name in (secret, f"{secret}_FILE")}
    given = {
        name: value
        for name, value in variables.items()
        if name not in hidden and not name.upper().startswith(SECRET_PREFIXES)
    }
    login = variables.get(BUILD_LOGIN)
    return {**given, "DOCKER_CONFIG": login} if login else given


def registry_logins(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that names the login that pushes. Pure."""
    return {name: variables[name] for name in REGISTRY_LOGINS if name in variables}


def webhook_key() -> str:
    """Return the key that the webhooks' secrets are derived from.

    Raises:
        RefusedError: If it is not set, or too short to keep a secret.
    """
    key = secret(WEBHOOK_KEY, "the key of the webhooks (`openssl rand -hex 32` makes one)")
    if len(key) < _SHORTEST:
        raise RefusedError(f"${WEBHOOK_KEY}: has {len(key)} characters, at least {_SHORTEST} are needed")
    return key


def hook_secret(key: str, repository: str) -> str:
    """Return the secret with which Gitea signs what it sends for a repository."""
    return _derived(key, f"secret:{repository}")


def hook_token(key: str, repository: str) -> str:
    """Return the token by which the repository's webhook starts its job, and no other."""
    return _derived(key, f"token:{repository}")


def _derived(key: str, use: str) -> str:
    return hmac.new(key.encode(), use.encode(), hashlib.sha256).hexdigest()
