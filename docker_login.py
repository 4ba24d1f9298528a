"""The login that ``docker login`` left for a registry: in Docker's file, or with a credential helper.

Form of the file: https://docs.docker.com/reference/cli/docker/login/#credential-stores. A helper's protocol:
https://github.com/docker/docker-credential-helpers#development. The login never goes into an argument or a message.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.fields import plain_mapping

_HELPER_SECONDS = 30.0
_UNKNOWN = ("credentials not found in native keychain", "no credentials server URL", "no credentials username")
"""What a helper says that has no login for a host: that is no failure."""
_TOKEN_USER = "<token>"  # noqa: S105 - what a helper calls a user who is known by a token alone


class LoginError(Exception):
    """A credential helper could not be asked; the message names it."""


def credentials(host: str) -> str | None:
    """Return ``base64(user:password)`` for a registry, None where there is none.

    Args:
        host: The registry as image references name it: ``harbor.example.com``.

    Raises:
        LoginError: If a credential helper is named for it that does not answer.
    """
    config = _config()
    # A helper of this host's own goes first, as in Docker. What stands in the file goes before `credsStore`, so that a
    # file from elsewhere needs no helper of its machine.
    helper = _text(_entry(config, "credHelpers", host))
    if not helper:
        found = _from_file(plain_mapping(_entry(config, "auths", host)) or {})
        if found:
            return found
        helper = _text(config.get("credsStore"))
    return _from_helper(helper, host) if helper else None


def _config() -> Mapping[str, Any]:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        return plain_mapping(json.loads((folder / "config.json").read_bytes())) or {}
    except (OSError, ValueError):
        return {}


def _entry(config: Mapping[str, Any], section: str, host: str) -> object:
    """Return what a section has for a host; Docker may have written it as a URL with a path, `https://<host>/v1/`."""
    entries = plain_mapping(config.get(section)) or {}
    if host in entries:
        return entries[host]
    return next((entry for name, entry in entries.items() if _host(name) == host), None)


def _host(name: str) -> str:
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _from_file(entry: Mapping[str, Any]) -> str | None:
    user, password = _text(entry.get("username")), _text(entry.get("password"))
    return _text(entry.get("auth")) or (_encoded(user, password) if user and password else None)


def _from_helper(helper: str, host: str) -> str | None:
    program = f"docker-credential-{helper}"
    remedy = f"run `docker login {host}`, which uses it too, or take it out of Docker's config.json"
    try:
        answer = subprocess.run(
            [program, "get"], input=host.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoginError(f"{program} gave no login for {host} within {_HELPER_SECONDS:.0f} s: {remedy}") from None
    except OSError as error:
        raise LoginError(
            f"{program}, which Docker's config.json names for {host}, can't be started ({error.strerror}): install it, "
            "or take it out of that file"
        ) from None
    # What it says is not told on: it may be a login.
    if answer.returncode:
        if any(words.encode() in answer.stdout for words in _UNKNOWN):
            return None
        raise LoginError(f"{program} gave no login for {host} (exit code {answer.returncode}): {remedy}")
    try:
        told = plain_mapping(json.loads(answer.stdout)) or {}
    except ValueError:
        told = {}
    user, password = _text(told.get("Username")), _text(told.get("Secret"))
    if user == _TOKEN_USER:
        raise LoginError(
            f"{program} has a token for {host}, and no password: run `docker login {host}` with a password"
        )
    if not user or not password:
        raise LoginError(f"{program} answered for {host} with something that is no login: {remedy}")
    return _encoded(user, password)


def _encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
