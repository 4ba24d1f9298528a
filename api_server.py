"""The API server of a cluster, asked with whatever credential its kubeconfig names; used by the program and `release`.

lightkube reads kubeconfigs and knows tokens and certificates. Of a command that gives the credential
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins) it takes only a
token, and not from ``client.authentication.k8s.io/v1``; ACK's own gives a certificate. So such commands are run here.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from http import HTTPStatus

import httpx2
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User, UserExec
from lightkube.core.exceptions import ConfigError

from model.fields import plain_mapping

_PLUGIN_SECONDS = 60.0
_INFO_VARIABLE = "KUBERNETES_EXEC_INFO"
UNUSABLE = (ConfigError, OSError, ValueError, KeyError, TypeError)
"""What a kubeconfig that is wrong makes of the attempt to use it."""


class CredentialError(ConfigError):
    """The command that a kubeconfig names gives no credential."""


class ApiServer:
    """The API server of one cluster."""

    def __init__(self, config: SingleConfig, seconds: float) -> None:
        """Prepare to ask it; only a command that gives the credential is run.

        Args:
            config: The cluster and the user, of a kubeconfig.
            seconds: How long an answer is waited for.

        Raises:
            Any of ``UNUSABLE``: If the kubeconfig is not usable, or its command gives no credential.
        """
        self._config = config
        self._plugin = config.user.exec if config.user else None
        self._seconds = seconds
        self._client = self._connected()

    @property
    def base_url(self) -> httpx2.URL:
        """Its address."""
        return self._client.base_url

    def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Return its answer. A credential that has ended meanwhile is asked for once more.

        Raises:
            httpx2.HTTPError: If it does not answer.
            ConfigError: If there is no credential any more.
            OSError: Likewise, of a file that is gone.
        """
        answer = self._client.get(path, params=params, headers=headers)
        if answer.status_code != HTTPStatus.UNAUTHORIZED or not self._plugin:
            return answer
        self._client.close()
        self._client = self._connected()
        return self._client.get(path, params=params, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _connected(self) -> httpx2.Client:
        config = self._config
        if self._plugin:
            config = config._replace(user=credential(self._plugin))
        return Client(config, ConnectionParams(timeout=httpx2.Timeout(self._seconds)))


def credential(plugin: UserExec) -> User:
    """Return the credential that a command gives: a token, or a certificate with its key.

    Raises:
        CredentialError: If it gives none; nothing that it printed as its answer is in the message.
    """
    told = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
    own = {each.name: each.value for each in plugin.env or ()}
    try:
        done = subprocess.run(
            [plugin.command, *(plugin.args or ())],
            env={**os.environ, **own, _INFO_VARIABLE: json.dumps(told)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PLUGIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CredentialError(f"`{plugin.command}` gives no credential within {_PLUGIN_SECONDS:.0f} s") from None
    except OSError as error:
        raise CredentialError(f"`{plugin.command}`, which gives the credential, can't be run: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise CredentialError(f"`{plugin.command}` gives no credential (exit code {done.returncode}): {said[-500:]}")
    found = _user(done.stdout)
    if found is None:
        raise CredentialError(f"`{plugin.command}` prints no ExecCredential with a token or a certificate")
    return found


def _user(printed: bytes) -> User | None:
    try:
        content = plain_mapping(json.loads(printed)) or {}
    except ValueError:
        return None
    status = plain_mapping(content.get("status")) or {}
    token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if certificate and key:
        pair = [base64.b64encode(str(each).encode()).decode() for each in (certificate, key)]
        return User(client_cert_data=pair[0], client_key_data=pair[1], token=str(token) if token else None)
    return User(token=str(token)) if token else None
