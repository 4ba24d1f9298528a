"""``python -m pipeline harbor``, against a stand-in that holds Harbor's contract as its API description tells it.

It is no Harbor: it refuses fields, kinds and values that ``swagger.yaml`` (v2.0) does not have, and keeps the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from model.release import KEPT_RELEASES
from pipeline import harbor
from pipeline.__main__ import app
from pipeline.errors import PipelineError
from tests.unit.stand_in import Answer, Asked, served

ROOT = Path(__file__).parents[2]
FIELDS = {
    "/projects": {"project_name", "metadata", "public", "storage_limit", "registry_id", "cve_allowlist"},
    "/retentions": {"id", "algorithm", "rules", "trigger", "scope"},
    "immutabletagrules": {
        "id",
        "priority",
        "disabled",
        "action",
        "template",
        "params",
        "tag_selectors",
        "scope_selectors",
    },
    "/robots": {"name", "description", "secret", "level", "disable", "duration", "permissions"},
}
ROBOT_FIELDS = FIELDS["/robots"] | {"id", "editable", "expires_at", "creation_time", "update_time"}
TEMPLATES = {"latestPushedK", "latestPulledN", "nDaysSinceLastPush", "nDaysSinceLastPull", "always"}
SECRET = "robot-secret-told-once"  # noqa: S105 - of a stand-in


class Harbor:
    """What a registry holds, and how it answers."""

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, Any]] = {}
        self.retentions: dict[int, dict[str, Any]] = {}
        self.immutable: dict[str, list[dict[str, Any]]] = {}
        self.robots: list[dict[str, Any]] = []
        self.changes: list[str] = []
        self.prefix = "robot$"

    def answer(self, asked: Asked) -> Answer:
        path = asked.path.removeprefix("/api/v2.0").partition("?")[0]
        if not asked.headers.get("authorization", "").startswith("Basic "):
            return Answer(401, '{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized"}]}')
        if asked.method == "GET":
            found = self._get(path)
            return Answer(404, "{}") if found is None else Answer(body=json.dumps(found))
        self.changes.append(f"{asked.method} {path}")
        return self._change(asked.method, path, json.loads(asked.body))

    def _get(self, path: str) -> object:
        if found := re.fullmatch(r"/projects/(\w+)/immutabletagrules", path):
            return self.immutable.get(found[1], [])
        if found := re.fullmatch(r"/projects/(\w+)", path):
            return self.projects.get(found[1])
        if found := re.fullmatch(r"/retentions/(\d+)", path):
            return self.retentions.get(int(found[1]))
        if path == "/configurations":
            return {"robot_name_prefix": {"value": self.prefix, "editable": True}}
        return self.robots if path == "/robots" else None

    def _change(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if found := re.fullmatch(r"/projects/(\w+)/immutabletagrules", path):
            assert set(body) <= FIELDS["immutabletagrules"]
            self.immutable.setdefault(found[1], []).append({"id": 1, "priority": 0, **body})
        elif path == "/projects":
            assert set(body) <= FIELDS["/projects"]
            metadata = {**body["metadata"], "retention_id": None}
            self.projects[body["project_name"]] = {"project_id": len(self.projects) + 2, "metadata": metadata}
        elif path.startswith("/retentions"):
            return self._retention(method, path, body)
        elif path == "/robots":
            assert set(body) <= FIELDS["/robots"]
            self.robots.append({**body, "id": 7, "name": f"{self.prefix}{body['name']}", "editable": True})
            return Answer(201, json.dumps({"id": 7, "name": self.robots[-1]["name"], "secret": SECRET}))
        elif path == "/robots/7":
            assert set(body) <= ROBOT_FIELDS
            # Harbor refuses another name than the robot has.
            if body["name"] != self.robots[0]["name"]:
                return Answer(400, '{"errors":[{"message":"cannot update the name of robot"}]}')
            self.robots[0] = {**self.robots[0], **body}
        else:
            return Answer(404, "{}")
        return Answer(201)

    def _retention(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        assert set(body) <= FIELDS["/retentions"]
        assert body["algorithm"] == "or"
        assert {rule["template"] for rule in body["rules"]} <= TEMPLATES
        (project,) = [each for each in self.projects.values() if each["project_id"] == body["scope"]["ref"]]
        present = project["metadata"]["retention_id"]
        if method == "POST":
            if present:
                return Answer(400, '{"errors":[{"message":"project has retention already"}]}')
            number = len(self.retentions) + 1
            project["metadata"]["retention_id"] = str(number)
        else:
            number = int(path.rpartition("/")[2])
        rules = [{"id": index, "priority": 0, **rule} for index, rule in enumerate(body["rules"])]
        self.retentions[number] = {**body, "id": number, "rules": rules}
        return Answer(201)


@pytest.fixture
def held() -> Harbor:
    return Harbor()


@pytest.fixture
def url(held: Harbor, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HARBOR_USER", "admin")
    monkeypatch.setenv("HARBOR_PASSWORD", "hidden")
    with served(held.answer) as root:
        yield root


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["harbor", "apply", *words, "--cwd", str(ROOT)])
    if isinstance(result.exception, PipelineError):
        return result.exception.code, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_fresh_registry_gets_everything_and_a_second_run_changes_nothing(
    held: Harbor, url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "robot"
    code, said = run("--harbor", url, "--robot-secret", str(secret))
    assert code == 0
    assert secret.read_text() == SECRET
    assert secret.stat().st_mode & 0o777 == 0o600
    assert SECRET not in said
    assert set(held.projects) == {"back", "front"}
    assert {each["metadata"]["public"] for each in held.projects.values()} == {"false"}
    held.changes.clear()
    code, said = run("--harbor", url)
    assert code == 0
    assert all(line.endswith("right") for line in said.splitlines())
    assert not held.changes


def test_retention_keeps_more_than_a_rollback_can_ask_for_and_latest() -> None:
    newest, always = harbor.retention_body(3)["rules"]
    assert newest["params"]["latestPushedK"] >= KEPT_RELEASES
    assert newest["tag_selectors"][0]["pattern"] == "**"
    assert (always["template"], always["tag_selectors"][0]["pattern"]) == ("always", "latest")


def test_all_tags_but_latest_are_immutable() -> None:
    (selector,) = harbor.immutable_body()["tag_selectors"]
    assert (selector["decoration"], selector["pattern"]) == ("excludes", "latest")


def test_the_robot_may_pull_and_push_and_nothing_else() -> None:
    for each in harbor.robot_body()["permissions"]:
        assert {(access["resource"], access["action"]) for access in each["access"]} == {
            ("repository", "pull"),
            ("repository", "push"),
        }


def test_what_was_changed_by_hand_is_repaired(held: Harbor, url: str, tmp_path: Path) -> None:
    run("--harbor", url, "--robot-secret", str(tmp_path / "robot"))
    held.retentions[1]["rules"][0]["params"]["latestPushedK"] = 2
    held.immutable["front"].clear()
    held.robots[0]["permissions"] = held.robots[0]["permissions"][:1]
    held.changes.clear()
    assert run("--harbor", url)[0] == 0
    assert held.changes == ["PUT /retentions/1", "POST /projects/front/immutabletagrules", "PUT /robots/7"]
    held.changes.clear()
    run("--harbor", url)
    assert not held.changes


@pytest.mark.parametrize("prefix", ["robot$", "bot_"])
def test_a_robot_whose_name_ends_as_ours_does_is_not_ours(held: Harbor, url: str, tmp_path: Path, prefix: str) -> None:
    held.prefix = prefix
    others: list[dict[str, Any]] = [
        {"id": 8, "name": f"{prefix}legacy-package-platform", "level": "system", "permissions": []},
        {"id": 9, "name": f"{prefix}back+package-platform", "level": "project", "permissions": []},
    ]
    held.robots += others
    assert "robot package-platform is not there yet" in run("--harbor", url)[1]
    assert run("--harbor", url, "--robot-secret", str(tmp_path / "robot"))[0] == 0
    assert held.robots[:2] == others
    assert [each["name"] for each in held.robots[2:]] == [f"{prefix}package-platform"]
    held.changes.clear()
    assert run("--harbor", url)[0] == 0
    assert not held.changes


def test_dry_run_changes_nothing(held: Harbor, url: str) -> None:
    code, said = run("--harbor", url, "--dry-run")
    assert code == 0
    assert "project back: (dry run) is made" in said
    assert "robot package-platform: (dry run) is made" in said
    assert not held.changes


def test_the_answer_may_be_one_json_document(held: Harbor, url: str, tmp_path: Path) -> None:
    told = json.loads(run("--harbor", url, "--dry-run", "--json")[1])
    assert told["dryRun"]
    assert {"name": "robot package-platform", "change": "is made"} in told["changes"]
    run("--harbor", url, "--robot-secret", str(tmp_path / "robot"))
    held.immutable["front"].clear()
    told = json.loads(run("--harbor", url, "--json")[1])
    assert told["changes"] == [{"name": "immutable tags of front", "change": "are made"}]
    assert {"project back", "retention of front", "robot package-platform"} <= set(told["right"])
    assert told["errors"] == []


def test_a_robot_without_a_place_for_its_secret_changes_nothing(held: Harbor, url: str, tmp_path: Path) -> None:
    assert run("--harbor", url) == (
        2,
        "the robot package-platform is not there yet: say where its secret goes, with --robot-secret",
    )
    there = tmp_path / "robot"
    there.write_text("old")
    code, said = run("--harbor", url, "--robot-secret", str(there))
    assert (code, there.read_text()) == (2, "old")
    assert "is there already" in said
    assert not held.changes


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            Answer(body="<html>Sign in</html>", kind="text/html"),
            "GET /robots?q=name%3D~package-platform&page_size=100: ",
        ),
        (Answer(body='{"robots": []}'), "GET /robots?q=name%3D~package-platform&page_size=100: "),
        (Answer(302), "302, a redirect: give --harbor the address that it leads to"),
    ],
)
def test_what_is_no_harbor_says_what_to_check(url: str, answer: Answer, line: str) -> None:
    assert url
    with served(lambda _: answer) as other:
        code, said = run("--harbor", other)
    assert code == 1
    assert line in said
    assert "--harbor" in said


def test_a_robot_whose_secret_is_not_told_has_to_be_made_anew(held: Harbor, url: str, tmp_path: Path) -> None:
    secret = tmp_path / "robot"
    assert url

    def answer(asked: Asked) -> Answer:
        told = held.answer(asked)
        return Answer(201, "<html>") if (asked.method, asked.path) == ("POST", "/api/v2.0/robots") else told

    with served(answer) as other:
        code, said = run("--harbor", other, "--robot-secret", str(secret))
    assert code == 1
    assert "remove the robot package-platform in Harbor's user interface, and run this again" in said
    assert not secret.exists()


def test_a_refusal_and_no_server_are_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--harbor", "http://127.0.0.1:9")[0] == 1
    monkeypatch.delenv("HARBOR_USER")
    assert run("--harbor", url)[1].startswith("$HARBOR_USER is not set")
