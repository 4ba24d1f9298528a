"""Webhooks: what has to change, decided without a server; secrets that are nowhere told."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import keys
from pipeline.__main__ import app
from pipeline.errors import PipelineError, RefusedError
from pipeline.gitea import Gitea, GiteaError
from pipeline.settings import Program
from pipeline.webhooks import Wanted, branches, plan, wanted_hooks
from tests.unit.stand_in import Answer, Asked, proxied, served

KEY = "k" * 32
URL = "https://jenkins.example.com/generic-webhook-trigger/invoke"
WANTED = Wanted("Some.Api", URL, "main", keys.hook_token(KEY, "Some.Api"), keys.hook_secret(KEY, "Some.Api"))


def there(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the right webhook as Gitea tells it, without its secret, or one that differs."""
    body = {**WANTED.body(), "id": number}
    return {**body, "config": {"url": URL, "content_type": "json"}, **changes}


def test_one_that_is_right_stays_untouched() -> None:
    foreign = {"id": 9, "config": {"url": "https://chat.example.com"}, "authorization_header": ""}
    assert plan(WANTED, [there(), foreign]) is None


def test_one_that_is_missing_is_made() -> None:
    change = plan(WANTED, [])
    assert change
    assert (change.create, change.edit, change.remove) == (True, None, ())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"active": False}, "active is False, not True"),
        ({"events": ["push", "create"]}, "events is ['create', 'push'], not ['push']"),
        ({"branch_filter": "*"}, "branch_filter is '*', not 'main'"),
        ({"config": {"url": URL, "content_type": "form"}}, "content_type is 'form', not 'json'"),
        ({"config": {"url": "http://old/", "content_type": "json"}}, f"url is 'http://old/', not '{URL}'"),
    ],
)
def test_one_that_is_wrong_is_repaired(changes: dict[str, Any], why: str) -> None:
    change = plan(WANTED, [there(3, **changes)])
    assert change
    assert (change.create, change.edit, change.remove) == (False, 3, ())
    assert change.why == f"is repaired: {why}"


def test_one_of_another_key_is_made_anew_as_a_secret_can_not_be_changed() -> None:
    change = plan(WANTED, [there(4, authorization_header="Bearer other")])
    assert change
    assert (change.create, change.edit, change.remove) == (True, None, (4,))


def test_doubles_go_and_renewal_leaves_one() -> None:
    change = plan(WANTED, [there(1), there(2)])
    assert change
    assert (change.create, change.edit, change.remove) == (False, None, (2,))
    change = plan(WANTED, [there(1), there(2)], renew=True)
    assert change
    assert (change.create, change.edit, change.remove) == (True, None, (1, 2))


def test_every_project_and_the_config_repository_have_secrets_of_their_own(tmp_path: Path) -> None:
    program = write(tmp_path)
    found = wanted_hooks(program.settings, branches(program), KEY)
    assert {each.repository: each.branch for each in found} == {"Some.Api": "main", "web": "release", "config": "main"}
    assert len({each.secret for each in found} | {each.token for each in found}) == 2 * len(found)
    assert not any(each.secret in repr(found) or each.token in repr(found) for each in found)


def write(folder: Path) -> Program:
    (folder / "projects").mkdir()
    (folder / "projects" / "Some.Api.yaml").write_text("kind: backend\n")
    (folder / "projects" / "web.yaml").write_text("kind: frontend\nbuild: {branch: release}\n")
    (folder / "pipeline.yaml").write_text(
        "gitea: {url: 'http://127.0.0.1:9', owner: sjzy}\n"
        "jenkins: {url: 'https://jenkins.example.com'}\nregistry: harbor.example.com\n"
    )
    return Program(folder)


def refused(folder: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        CliRunner().invoke(app, ["webhooks", "apply", "--cwd", str(folder)], catch_exceptions=False)
    return str(caught.value)


def test_missing_secrets_and_a_server_that_is_down_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    assert refused(tmp_path).startswith("$PIPELINE_WEBHOOK_KEY is not set: give it the key of the webhooks")
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", "short")
    assert refused(tmp_path) == "$PIPELINE_WEBHOOK_KEY: has 5 characters, at least 32 are needed"
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", KEY)
    monkeypatch.setenv("GITEA_TOKEN_FILE", str(tmp_path / "missing"))
    assert refused(tmp_path).startswith(f"$GITEA_TOKEN_FILE: {tmp_path}/missing is not readable")
    (tmp_path / "missing").write_text("t0ken\n")
    lines = refused(tmp_path).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Gitea can't be reached at http://127.0.0.1:9: ") for line in lines)


def test_the_answer_may_be_one_json_document_also_when_some_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", KEY)
    monkeypatch.setenv("GITEA_TOKEN", "t0ken")
    settings = tmp_path / "pipeline.yaml"
    with served(lambda asked: Answer(404) if "/config/" in asked.path else Answer(body="[]")) as url:
        settings.write_text(settings.read_text().replace("http://127.0.0.1:9", url))
        result = CliRunner().invoke(app, ["webhooks", "apply", "--cwd", str(tmp_path), "--dry-run", "--json"])
    assert isinstance(result.exception, PipelineError)
    told = json.loads(result.stdout)
    assert told["changes"] == [{"name": name, "change": "is made"} for name in ("Some.Api", "web")]
    assert told["errors"] == [*result.exception.lines]
    assert told["errors"][0].startswith("sjzy/config: Gitea has no such repository")


@pytest.mark.parametrize("page", ["<html>Sign in</html>", '{"message": "hello"}', '["a"]'])
def test_a_page_instead_of_giteas_answer_says_what_to_check(page: str) -> None:
    with (
        served(lambda _: Answer(body=page)) as url,
        Gitea(url, "t0ken") as gitea,
        pytest.raises(
            GiteaError, match=r"sjzy/Some.Api: what answers at .* is no Gitea: .* gitea.url in pipeline.yaml"
        ),
    ):
        gitea.hooks("sjzy", "Some.Api")


def test_gitea_is_asked_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(request: Asked) -> Answer:
        asked.append(f"{request.method} {request.path} {request.headers['authorization']}")
        return Answer(body="[]")

    with proxied(answer, monkeypatch), Gitea("http://gitea.invalid", "t0ken") as gitea:
        assert gitea.hooks("sjzy", "Some.Api") == []
    assert asked == ["GET http://gitea.invalid/api/v1/repos/sjzy/Some.Api/hooks?page=1&limit=50 token t0ken"]


def test_a_proxy_that_can_not_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    with pytest.raises(GiteaError, match=r"^Gitea can't be reached at http://gitea.invalid: a proxy that .* can't"):
        Gitea("http://gitea.invalid", "t0ken")


def test_a_file_may_hold_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY_FILE", str(tmp_path / "key"))
    assert keys.webhook_key() == KEY
    (tmp_path / "key").write_text("two words of a secret, that is long enough")
    with pytest.raises(RefusedError, match="has spaces or unprintable characters"):
        keys.webhook_key()


def test_bad_project_files_are_told_all_at_once_before_any_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", KEY)
    (tmp_path / "projects" / "web.yaml").write_text("kind: frontend\nbuild: {branch: '-x'}\n")
    (tmp_path / "projects" / "Some.Api.yaml").write_text("kind: backend\nbuild: {comand: [x]}\n")
    lines = refused(tmp_path).splitlines()
    assert lines[0] == "projects/Some.Api.yaml:build.comand: unknown key; did you mean 'command'?"
    assert lines[1].startswith("projects/web.yaml:build.branch: string should match pattern")
