"""``python -m pipeline harbor``: the projects ``front`` and ``back`` of a Harbor registry, by its API v2.0.

Form of what is sent: Harbor's own API description, https://github.com/goharbor/harbor/blob/main/api/v2.0/swagger.yaml
(``ProjectReq``, ``RetentionPolicy``, ``ImmutableRule``, ``RobotCreate``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Self, cast

import httpx2
import typer

from model.fields import plain_mapping
from model.release import KEPT_RELEASES
from pipeline import keys
from pipeline.arguments import HERE, AsJson, Cwd, DryRun, SettingsFile
from pipeline.errors import EXIT_CODES, PipelineError, RefusedError
from pipeline.settings import Program
from pipeline.told import Told

USER = "HARBOR_USER"
PASSWORD = "HARBOR_PASSWORD"  # noqa: S105 - a variable's name
FOLDERS = ("back", "front")
KEPT_TAGS = 10 * KEPT_RELEASES
"""Tags of each repository that the retention keeps, the ones pushed last. A rollback asks for one of the last
``KEPT_RELEASES`` releases of a stack; the rest is for the builds that never came so far as prod."""
ROBOT = "package-platform"
HELP = f"""Make or repair the projects back and front, their retention, their immutable tags and the robot that pushes.

\b
Run it again whenever you like: what is right stays untouched. Needs $HARBOR_USER and $HARBOR_PASSWORD (or
$HARBOR_PASSWORD_FILE) of an administrator. The robot's secret is told once, by Harbor, when the robot is made: it is
written to the file of --robot-secret, which must not be there yet.

\b
Examples:
  python -m pipeline harbor apply --dry-run
  python -m pipeline harbor apply --robot-secret /run/secrets/harbor-robot

\b
{EXIT_CODES}
"""
_PREFIX = "robot$"
_TIMEOUT_SECONDS = 30.0
_EVERY_NIGHT = "0 0 3 * * *"

Json = dict[str, Any]
app = typer.Typer(no_args_is_help=True, help="The projects of a Harbor registry.")


@app.callback()
def _group() -> None:
    """The projects of a Harbor registry."""


class Harbor:
    """Harbor's API, as an administrator."""

    def __init__(self, url: str, user: str, password: str) -> None:
        """Prepare to ask; nothing is asked yet.

        Args:
            url: Root of the server.
            user: Who asks.
            password: That user's.
        """
        self._url = url
        # Names of projects are told apart from their numbers by this header.
        self._client = httpx2.Client(
            base_url=f"{url}/api/v2.0",
            auth=(user, password),
            headers={"X-Is-Resource-Name": "true"},
            timeout=_TIMEOUT_SECONDS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Json | None:
        """Return the object that is there, None for 404.

        Raises:
            PipelineError: If Harbor does not answer, refuses, or answers with something else.
        """
        told = self._get(path)
        found = plain_mapping(told)
        if told is not None and found is None:
            raise self._no_harbor(path)
        return found

    def rows(self, path: str) -> list[Json]:
        """Return the objects of a list, none for 404.

        Raises:
            PipelineError: If Harbor does not answer, refuses, or answers with something else.
        """
        told = self._get(path)
        if told is None:
            return []
        rows = [plain_mapping(row) for row in cast("list[object]", told)] if isinstance(told, list) else [None]
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            raise self._no_harbor(path)
        return found

    def send(self, method: str, path: str, body: Json) -> httpx2.Response:
        """Make or change something.

        Raises:
            PipelineError: If Harbor does not answer, or refuses.
        """
        answer = self._ask(method, path, body)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise PipelineError(f"Harbor at {self._url}: {method} {path}: there is no such thing")
        return answer

    def _get(self, path: str) -> object:
        answer = self._ask("GET", path)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        try:
            return answer.json()
        except ValueError:
            raise self._no_harbor(path) from None

    def _no_harbor(self, path: str) -> PipelineError:
        return PipelineError(
            f"Harbor at {self._url}: GET {path}: what answers is no Harbor: check --harbor, by default the registry in "
            "pipeline.yaml, and whether a proxy or a login page is in front of it"
        )

    def _ask(self, method: str, path: str, body: Json | None = None) -> httpx2.Response:
        try:
            answer = self._client.request(method, path, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise PipelineError(f"Harbor at {self._url} does not answer: {error}") from None
        if answer.is_redirect:
            # To follow it would turn what is sent into a question.
            raise PipelineError(
                f"Harbor at {self._url}: {method} {path}: {answer.status_code}, a redirect: give --harbor the address "
                "that it leads to"
            )
        if answer.is_error and answer.status_code != HTTPStatus.NOT_FOUND:
            raise PipelineError(f"Harbor at {self._url}: {method} {path}: {answer.status_code} {_told(answer)}")
        return answer


@app.command(help=HELP)
def apply(  # noqa: PLR0913 - options of a command line
    *,
    harbor: Annotated[
        str, typer.Option("--harbor", help="Root of the server; by default https:// and pipeline.yaml's registry.")
    ] = "",
    robot_secret: Annotated[
        Path | None, typer.Option("--robot-secret", help="New file for the robot's secret.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    cwd: Cwd = HERE,
    settings_file: SettingsFile = None,
) -> None:
    """Bring the registry in order."""
    with Told(dry_run=dry_run, as_json=as_json) as told:
        url = (harbor or f"https://{Program(cwd, settings_file).settings.registry}").rstrip("/")
        user = os.environ.get(USER, "")
        if not user:
            raise RefusedError(f"${USER} is not set: give it an administrator of Harbor")
        with Harbor(url, user, keys.secret(PASSWORD, "the password of that user")) as server:
            run(server, robot_secret, told)


def run(harbor: Harbor, robot_secret: Path | None, told: Told) -> None:
    """Make or repair everything, or say what would be done.

    Raises:
        PipelineError: If Harbor does not answer, or refuses.
        RefusedError: If the robot has to be made, and there is nowhere to put its secret.
    """
    robot = _robot(harbor)
    if robot is None and not told.dry_run:
        if robot_secret is None:
            raise RefusedError(f"the robot {ROBOT} is not there yet: say where its secret goes, with --robot-secret")
        if robot_secret.exists():
            raise RefusedError(f"{robot_secret}: is there already: name a new file")
    for folder in FOLDERS:
        _project(harbor, folder, told)
    if robot is None:
        if not told.dry_run and robot_secret is not None:
            _make_robot(harbor, robot_secret)
        told.change(f"robot {ROBOT}", "is made")
    elif not _grants(robot):
        own = {key: robot[key] for key in ("id", "name", "duration", "disable") if key in robot}
        _change(harbor, "PUT", f"/robots/{robot['id']}", {**robot_body(), **own, "disable": False}, told)
        told.change(f"robot {ROBOT}", "is repaired: it may not push to back and front")
    else:
        told.right(f"robot {ROBOT}")


def project_body(folder: str) -> Json:
    """Return a project as it is made: what is in it is for those who log in. Pure."""
    return {"project_name": folder, "metadata": {"public": "false"}}


def retention_body(project: int) -> Json:
    """Return the retention: the newest tags of each repository stay, and ``latest`` does. Pure.

    Args:
        project: The project's number.
    """
    return {
        "algorithm": "or",
        "scope": {"level": "project", "ref": project},
        "trigger": {"kind": "Schedule", "settings": {"cron": _EVERY_NIGHT}, "references": {}},
        "rules": [
            _kept("latestPushedK", {"latestPushedK": KEPT_TAGS}, "**"),
            _kept("always", {}, "latest"),
        ],
    }


def immutable_body() -> Json:
    """Return the rule that no tag but ``latest`` is ever pushed anew. Pure."""
    return {
        "action": "immutable",
        "template": "immutable_template",
        "disabled": False,
        "tag_selectors": [{"kind": "doublestar", "decoration": "excludes", "pattern": "latest"}],
        "scope_selectors": _everywhere(),
    }


def robot_body() -> Json:
    """Return the account that the jobs push with; it may do nothing else. Pure."""
    access = [{"resource": "repository", "action": action} for action in ("pull", "push")]
    return {
        "name": ROBOT,
        "description": "pushes the images of the Jenkins jobs",
        "level": "system",
        "duration": -1,
        "disable": False,
        "permissions": [{"kind": "project", "namespace": folder, "access": access} for folder in FOLDERS],
    }


def _project(harbor: Harbor, folder: str, told: Told) -> None:
    found = harbor.get(f"/projects/{folder}")
    if found is None:
        _change(harbor, "POST", "/projects", project_body(folder), told)
        told.change(f"project {folder}", "is made, with its retention and immutable tags")
        if told.dry_run:
            return
        found = harbor.get(f"/projects/{folder}")
        if found is None:
            raise PipelineError(f"Harbor made the project {folder}, and does not show it")
    else:
        told.right(f"project {folder}")
    _retention(harbor, folder, found, told)
    rules = harbor.rows(f"/projects/{folder}/immutabletagrules")
    if any(within(immutable_body(), rule) for rule in rules):
        told.right(f"immutable tags of {folder}", "are right")
        return
    _change(harbor, "POST", f"/projects/{folder}/immutabletagrules", immutable_body(), told)
    told.change(f"immutable tags of {folder}", "are made")


def _retention(harbor: Harbor, folder: str, project: Json, told: Told) -> None:
    number = (plain_mapping(project.get("metadata")) or {}).get("retention_id")
    wanted = retention_body(int(project["project_id"]))
    found = harbor.get(f"/retentions/{number}") if number else None
    if found is not None and within(wanted, found):
        told.right(f"retention of {folder}")
        return
    if found is None:
        _change(harbor, "POST", "/retentions", wanted, told)
    else:
        _change(harbor, "PUT", f"/retentions/{number}", {**wanted, "id": int(str(number))}, told)
    told.change(f"retention of {folder}", "is repaired" if found is not None else "is made")


def _change(harbor: Harbor, method: str, path: str, body: Json, told: Told) -> None:
    if not told.dry_run:
        harbor.send(method, path, body)


def _robot(harbor: Harbor) -> Json | None:
    """Return our robot; Harbor puts a prefix before its name, which an administrator can choose."""
    found = harbor.rows(f"/robots?q=name%3D~{ROBOT}&page_size=100")
    if not found:
        return None
    # The whole name: another one's may end as ours does.
    told = plain_mapping((harbor.get("/configurations") or {}).get("robot_name_prefix")) or {}
    name = f"{told.get('value') or _PREFIX}{ROBOT}"
    return next((each for each in found if each.get("name") == name and each.get("level") == "system"), None)


def _grants(robot: Json) -> bool:
    wanted = {
        (each["namespace"], access["resource"], access["action"])
        for each in robot_body()["permissions"]
        for access in each["access"]
    }
    given = {
        (each.get("namespace"), access.get("resource"), access.get("action"))
        for each in robot.get("permissions") or ()
        for access in each.get("access") or ()
    }
    return wanted == given and not robot.get("disable")


def within(wanted: object, found: object) -> bool:
    """Tell whether all that is wanted is there; Harbor adds numbers and defaults of its own. Pure."""
    if isinstance(wanted, Mapping):
        there = plain_mapping(found)
        return there is not None and all(
            within(value, there.get(str(key))) for key, value in cast("Mapping[str, object]", wanted).items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        parts, others = cast("Sequence[object]", wanted), found
        return (
            isinstance(others, list)
            and len(parts) == len(cast("list[object]", others))
            and all(map(within, parts, cast("list[object]", others)))
        )
    return wanted == found or (wanted == {} and found is None)


def _kept(template: str, params: Json, tags: str) -> Json:
    return {
        "action": "retain",
        "disabled": False,
        "template": template,
        "params": params,
        "tag_selectors": [{"kind": "doublestar", "decoration": "matches", "pattern": tags}],
        "scope_selectors": _everywhere(),
    }


def _everywhere() -> Json:
    return {"repository": [{"kind": "doublestar", "decoration": "repoMatches", "pattern": "**"}]}


def _make_robot(harbor: Harbor, path: Path) -> None:
    try:
        # The file comes first: a secret that can't be written down is lost.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise RefusedError(f"{path}: can't be made: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        try:
            file.write(_secret(harbor.send("POST", "/robots", robot_body())))
        except PipelineError:
            path.unlink()
            raise


def _secret(answer: httpx2.Response) -> str:
    """Return a new robot's secret; Harbor does not tell it again.

    Raises:
        PipelineError: If it is not in the answer.
    """
    try:
        secret = (plain_mapping(answer.json()) or {}).get("secret")
    except ValueError:
        secret = None
    if not secret:
        raise PipelineError(
            "Harbor's answer has no secret of the robot: remove the robot "
            f"{ROBOT} in Harbor's user interface, and run this again"
        )
    return str(secret)


def _told(answer: httpx2.Response) -> str:
    try:
        told = (plain_mapping(answer.json()) or {}).get("errors")
    except ValueError:
        return ""
    errors = cast("list[object]", told) if isinstance(told, list) else []
    return "; ".join(str((plain_mapping(error) or {}).get("message", "")) for error in errors)
