"""What is asked of a Jenkins server, by python-jenkins: jobs, views, and the credentials of the webhooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from xml.sax.saxutils import escape

import jenkins
import requests

from pipeline import keys
from pipeline.errors import PipelineError, RefusedError

USER = "JENKINS_USER"
TOKEN = "JENKINS_TOKEN"  # noqa: S105 - a variable's name
_TIMEOUT_SECONDS = 30
_CREDENTIALS = "credentials/store/system/domain/_/"
_Value = TypeVar("_Value")


class Server:
    """A Jenkins server.

    The user's rights are: Overall/Read, Job/Create, Job/Configure, Job/Read, View/*, and Credentials/* where the
    webhooks' tokens are written.
    """

    def __init__(self, url: str, user: str, token: str) -> None:
        """Prepare to ask; nothing is asked yet.

        Args:
            url: Root of the server.
            user: Who asks.
            token: That user's API token.
        """
        self._url = url
        self._server: Any = jenkins.Jenkins(url, username=user, password=token, timeout=_TIMEOUT_SECONDS)

    @classmethod
    def from_environment(cls, url: str) -> Server:
        """Prepare to ask as $JENKINS_USER, with $JENKINS_TOKEN or what $JENKINS_TOKEN_FILE names.

        Raises:
            RefusedError: If one of them is not set.
        """
        user = os.environ.get(USER, "")
        if not user:
            raise RefusedError(f"${USER} is not set: give it the Jenkins user whose API token ${TOKEN} is")
        return cls(url, user, keys.secret(TOKEN, "an API token of Jenkins"))

    def jobs(self) -> list[str]:
        """Return the names of the jobs at the top; what is inside folders is not ours."""
        found = self._asked(self._server.get_jobs)
        return [str(job["name"]) for job in cast("list[Mapping[str, Any]]", found)]

    def job(self, name: str) -> str:
        """Return a job's XML."""
        return str(self._asked(lambda: self._server.get_job_config(name)))

    def create_job(self, name: str, xml: str) -> None:
        """Make a job."""
        self._asked(lambda: self._server.create_job(name, xml))

    def change_job(self, name: str, xml: str) -> None:
        """Give a job another XML."""
        self._asked(lambda: self._server.reconfig_job(name, xml))

    def disable_job(self, name: str) -> None:
        """Start it no more; its builds and their logs stay."""
        self._asked(lambda: self._server.disable_job(name))

    def view(self, name: str) -> str | None:
        """Return a view's XML, None when there is none."""
        if not self._asked(lambda: self._server.view_exists(name)):
            return None
        return str(self._asked(lambda: self._server.get_view_config(name)))

    def create_view(self, name: str, xml: str) -> None:
        """Make a view."""
        self._asked(lambda: self._server.create_view(name, xml))

    def change_view(self, name: str, xml: str) -> None:
        """Give a view another XML."""
        self._asked(lambda: self._server.reconfig_view(name, xml))

    def has_credential(self, name: str) -> bool:
        """Tell whether there is a credential of that id."""
        request = requests.Request("GET", f"{self._url}/{_CREDENTIALS}credential/{name}/api/json")
        try:
            self._server.jenkins_open(request)
        except jenkins.NotFoundException:
            return False
        except Exception as error:  # noqa: BLE001 - see _asked
            raise _explained(self._url, error) from None
        return True

    def write_secret_text(self, name: str, description: str, secret: str) -> None:
        """Make a credential of the kind "secret text", or give it that secret; Jenkins never tells what it holds."""
        path = f"credential/{name}/config.xml" if self.has_credential(name) else "createCredentials"
        body = (
            '<org.jenkinsci.plugins.plaincredentials.impl.StringCredentialsImpl plugin="plain-credentials">'
            f"<scope>GLOBAL</scope><id>{escape(name)}</id><description>{escape(description)}</description>"
            f"<secret>{escape(secret)}</secret>"
            "</org.jenkinsci.plugins.plaincredentials.impl.StringCredentialsImpl>"
        )
        request = requests.Request(
            "POST", f"{self._url}/{_CREDENTIALS}{path}", data=body.encode(), headers={"Content-Type": "text/xml"}
        )
        self._asked(lambda: self._server.jenkins_open(request))

    def _asked(self, ask: Callable[[], _Value]) -> _Value:
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - python-jenkins raises its own, requests' and plain ones
            raise _explained(self._url, error) from None


def _explained(url: str, error: Exception) -> PipelineError:
    """Return the error as one line, without the body of an error page."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return PipelineError(f"Jenkins at {url}: {first}")
