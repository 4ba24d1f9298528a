"""``python -m pipeline jobs``, against a stand-in that answers as Jenkins' remote API does. It is no Jenkins."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from pipeline import jenkins_xml, jobs, keys
from pipeline.__main__ import app
from pipeline.errors import PipelineError, RefusedError
from pipeline.settings import Program
from tests.unit.stand_in import Answer, Asked, served

ROOT = Path(__file__).parents[2]
PROGRAM = Program(ROOT)
TOKEN, KEY = "11c0ffee", "k" * 40
CRUMB = {"crumbRequestField": "Jenkins-Crumb", "crumb": "c1"}


class Jenkins:
    """What a server holds, and how it answers."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.views: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.changes: list[str] = []
        self.asked: list[Asked] = []

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        wanted = "Basic " + base64.b64encode(f"robot:{TOKEN}".encode()).decode()
        if asked.headers.get("authorization") != wanted:
            return Answer(401, "Unauthorized", "text/html")
        parts = urlsplit(asked.path)
        path = unquote(parts.path)
        if path == "/crumbIssuer/api/json":
            return Answer(body=json.dumps(CRUMB))
        if asked.method == "POST":
            if asked.headers.get("jenkins-crumb") != CRUMB["crumb"]:
                return Answer(403, "No valid crumb was included in the request", "text/html")
            return self._post(path, parse_qs(parts.query), asked.body.decode())
        return self._get(path)

    def _get(self, path: str) -> Answer:  # noqa: PLR0911 - a case for each address
        if path == "/api/json":
            listed = {
                "jobs": [{"name": name, "url": "", "color": "blue", "_class": "WorkflowJob"} for name in self.jobs],
                "views": [{"name": name} for name in self.views],
            }
            return Answer(body=json.dumps(listed))
        if found := re.fullmatch(r"/job/([^/]+)/config\.xml", path):
            return self._xml(self.jobs.get(found[1]))
        if found := re.fullmatch(r"/job/([^/]+)/api/json", path):
            return Answer(body=json.dumps({"name": found[1]})) if found[1] in self.jobs else Answer(404)
        if found := re.fullmatch(r"/view/([^/]+)/config\.xml", path):
            return self._xml(self.views.get(found[1]))
        if found := re.fullmatch(r"/view/([^/]+)/api/json", path):
            return Answer(body=json.dumps({"name": found[1]})) if found[1] in self.views else Answer(404)
        if found := re.fullmatch(r"/credentials/store/system/domain/_/credential/([^/]+)/api/json", path):
            return Answer(body="{}") if found[1] in self.secrets else Answer(404)
        return Answer(404)

    def _post(self, path: str, query: dict[str, list[str]], body: str) -> Answer:
        self.changes.append(path)
        for kind, held in (("Item", self.jobs), ("View", self.views)):
            if path == f"/create{kind}":
                held[query["name"][0]] = self._as_kept(body)
                return Answer()
        if found := re.fullmatch(r"/(job|view)/([^/]+)/config\.xml", path):
            (self.jobs if found[1] == "job" else self.views)[found[2]] = self._as_kept(body)
            return Answer()
        if found := re.fullmatch(r"/job/([^/]+)/disable", path):
            xml = self.jobs[found[1]]
            self.jobs[found[1]] = xml.replace("<disabled>false</disabled>", "<disabled>true</disabled>")
            return Answer()
        if path.startswith("/credentials/store/system/domain/_/"):
            name, secret = re.search("<id>(.+?)</id>", body), re.search("<secret>(.+?)</secret>", body)
            assert name
            assert secret
            assert path.endswith("createCredentials") != (name[1] in self.secrets)
            self.secrets[name[1]] = secret[1]
            return Answer()
        return Answer(404)

    @staticmethod
    def _xml(xml: str | None) -> Answer:
        return Answer(404) if xml is None else Answer(body=xml, kind="application/xml")

    @staticmethod
    def _as_kept(xml: str) -> str:
        """As Jenkins writes it down: XML 1.1, versions of plugins, nothing that is empty."""
        kept = xml.replace('version="1.0" encoding="utf-8"', "version='1.1' encoding='UTF-8'")
        kept = kept.replace('plugin="workflow-job"', 'plugin="workflow-job@1540"')
        return re.sub(r"<(regexpFilter|token|spec|reference)/>", "", kept)


@pytest.fixture
def jenkins() -> Jenkins:
    return Jenkins()


@pytest.fixture
def url(jenkins: Jenkins, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("JENKINS_USER", "robot")
    monkeypatch.setenv("JENKINS_TOKEN", TOKEN)
    monkeypatch.delenv("PIPELINE_WEBHOOK_KEY", raising=False)
    with served(jenkins.answer) as root:
        yield root


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["jobs", *words, "--cwd", str(ROOT)])
    if isinstance(result.exception, PipelineError):
        return result.exception.code, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_fresh_server_gets_every_job_and_view_and_a_second_run_changes_nothing(jenkins: Jenkins, url: str) -> None:
    assert run("apply", "--jenkins", url)[0] == 0
    assert set(jenkins.jobs) == {*PROGRAM.names, "config"}
    assert set(jenkins.views) == {"back", "front"}
    jenkins.changes.clear()
    assert run("apply", "--jenkins", f"{url}/") == (0, "every job and view is right\n")
    assert not jenkins.changes


def test_dry_run_says_it_and_changes_nothing(jenkins: Jenkins, url: str) -> None:
    code, said = run("apply", "--jenkins", url, "--dry-run")
    assert code == 0
    assert "job packet: (dry run) create\n" in said
    assert not jenkins.changes


def test_the_answer_may_be_one_json_document(url: str) -> None:
    told = json.loads(run("apply", "--jenkins", url, "--dry-run", "--json")[1])
    assert (told["dryRun"], told["errors"]) == (True, [])
    assert {"name": "job packet", "change": "create"} in told["changes"]
    run("apply", "--jenkins", url)
    told = json.loads(run("apply", "--jenkins", url, "--json")[1])
    assert (told["dryRun"], told["changes"]) == (False, [])


def test_a_job_whose_file_is_gone_is_disabled_once_and_never_deleted(jenkins: Jenkins, url: str) -> None:
    run("apply", "--jenkins", url)
    jenkins.jobs["old"] = jenkins.jobs["packet"].replace("packet", "old")
    jenkins.jobs["somebody-elses"] = "<project><description>nightly</description></project>"
    jenkins.changes.clear()
    assert run("apply", "--jenkins", url) == (0, "job old: disable\n")
    assert jenkins.changes == ["/job/old/disable"]
    assert "<disabled>true</disabled>" in jenkins.jobs["old"]
    assert run("apply", "--jenkins", url) == (0, "every job and view is right\n")


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("<disabled>false</disabled>", "<disabled>true</disabled>"),
        ("<numToKeep>50</numToKeep>", "<numToKeep>5</numToKeep>"),
        ("<string>uat</string>", "<string>uat</string><string>my-own</string>"),
        ("<regexpFilterText>$REPOSITORY $REF $COMMIT</regexpFilterText>", ""),
    ],
)
def test_what_was_changed_by_hand_is_changed_back(jenkins: Jenkins, url: str, there: str, instead: str) -> None:
    run("apply", "--jenkins", url)
    assert there in jenkins.jobs["packet"]
    jenkins.jobs["packet"] = jenkins.jobs["packet"].replace(there, instead)
    assert run("apply", "--jenkins", url) == (0, "job packet: change\n")
    assert there in jenkins.jobs["packet"]


def test_a_job_of_that_name_that_is_not_ours_is_left_alone(jenkins: Jenkins, url: str) -> None:
    jenkins.jobs["packet"] = "<project><description>by hand</description></project>"
    code, said = run("apply", "--jenkins", url)
    assert code == 1
    assert said.startswith("job packet was not made from projects/")
    assert not jenkins.changes


def test_credentials_are_those_that_the_webhooks_are_made_with(
    jenkins: Jenkins, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", KEY)
    assert run("apply", "--jenkins", url, "--webhooks")[0] == 0
    code, said = run("apply", "--jenkins", url, "--webhooks")
    assert code == 0
    assert jenkins.secrets["webhook-token-packet"] == keys.hook_token(KEY, "packet")
    assert jenkins.secrets["webhook-secret-config"] == keys.hook_secret(KEY, "config")
    assert len(jenkins.secrets) == 2 * len(jenkins.jobs)
    assert not [secret for secret in [KEY, *jenkins.secrets.values()] if secret in said]
    assert not [asked.path for asked in jenkins.asked if keys.hook_token(KEY, "packet") in asked.path]


def test_a_wrong_token_or_no_server_is_one_line(jenkins: Jenkins, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JENKINS_TOKEN", "wrong")
    code, said = run("apply", "--jenkins", url)
    assert (code, len(said.splitlines())) == (1, 1)
    assert "wrong" not in said
    assert not jenkins.changes
    code, said = run("apply", "--jenkins", "http://127.0.0.1:9")
    assert (code, len(said.splitlines())) == (1, 1)


def test_what_is_not_set_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JENKINS_USER", "JENKINS_TOKEN", "JENKINS_TOKEN_FILE", "PIPELINE_WEBHOOK_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert run("apply")[1].startswith("$JENKINS_USER is not set")
    assert run("apply", "--webhooks")[1].startswith("$PIPELINE_WEBHOOK_KEY is not set")


def test_render_writes_every_file(tmp_path: Path) -> None:
    assert run("render", str(tmp_path))[0] == 0
    assert (tmp_path / "jobs" / "packet.xml").read_text() == jenkins_xml.jobs_xml(PROGRAM.settings, PROGRAM.projects())[
        "packet"
    ]
    assert sorted(path.name for path in (tmp_path / "views").iterdir()) == ["back.xml", "front.xml"]


def test_a_project_called_as_the_config_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "settings.yaml").write_text("kind: backend\n")
    written = (ROOT / "pipeline.yaml").read_text().replace("configRepository: config", "configRepository: settings")
    (tmp_path / "pipeline.yaml").write_text(written)
    with pytest.raises(RefusedError) as caught:
        Program(tmp_path).projects()
    assert list(caught.value.lines) == [
        "projects/settings.yaml: is the config repository (pipeline.yaml), which has a job of its own: rename one"
    ]


def test_the_order_of_different_elements_does_not_count_that_of_a_list_does() -> None:
    assert jobs.same("<a><b>1</b><c/></a>", "<a><d>9</d><b>1</b></a>")
    assert not jobs.same("<a><b>1</b><b>2</b></a>", "<a><b>2</b><b>1</b></a>")
    assert not jobs.same("<a><b>1</b></a>", "not xml")


def test_a_fresh_jenkins_has_every_credential_that_jobs_and_jenkinsfiles_name(tmp_path: Path) -> None:
    assert run("render", str(tmp_path))[0] == 0
    whole = yaml.safe_load((tmp_path / "jenkins.yaml").read_text())
    (domain,) = whole["credentials"]["system"]["domainCredentials"]
    config = PROGRAM.settings.gitea.config_repository
    held = {fields["id"] for each in domain["credentials"] for fields in each.values()}
    named = {
        found for path in (tmp_path / "jobs").iterdir() for found in re.findall(r"<\w*Id>([^<]+)<", path.read_text())
    }
    for file, names in (("Jenkinsfile", PROGRAM.names), ("config.Jenkinsfile", (config,))):
        for found in re.findall(r"credentials\((?:'|\")(.+?)(?:'|\")\)", (ROOT / "pipeline" / file).read_text()):
            named |= {found.replace("${env.JOB_BASE_NAME}", name) for name in names}
    assert named <= held
    # A job has the accounts that its Jenkinsfile binds, and no others.
    accounts = {name for name in held if name.startswith("kubeconfig-")}
    assert accounts == {name for name in named if name.startswith("kubeconfig-")}
    assert len(named) > 3 * len(PROGRAM.names)
    checked = whole["unclassified"]["whitelist"]["whitelistItems"]
    assert {each["hmacCredentialId"] for each in checked} == {
        f"webhook-secret-{name}" for name in (*PROGRAM.names, "config")
    }
    # A secret is only ever the name of a file.
    for each in domain["credentials"]:
        for fields in each.values():
            secret = fields.get("secret") or fields.get("password") or fields.get("secretBytes")
            assert re.fullmatch(r"\$\{(base64:\$\{[\w.-]+\}|[\w.-]+)\}", secret)


def test_the_secrets_are_files_for_their_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", KEY)
    code, said = run("secrets", str(tmp_path))
    assert code == 0
    file = tmp_path / "webhook-token-packet"
    assert file.read_text() == keys.hook_token(KEY, "packet")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert not [path for path in tmp_path.iterdir() if path.read_text() in said]
