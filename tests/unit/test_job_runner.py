"""The job runner that stands where Jenkins stands: which deliveries start a job, and how jobs run."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
import pytest

from devcluster.jenkinsfile import Pipeline, Stage, UnknownFormError, parse
from devcluster.job_runner import FAILURE, PARAMETERS, ROOT, SUCCESS, Gate, Push, RefusedPushError, Runner, serve
from pipeline import keys
from pipeline.settings import Program
from pipeline.webhooks import TRIGGER_PATH

KEY, API, COMMIT = "k" * 32, "Some.Api", "c" * 40
WAIT_SECONDS = 60.0


def payload(**changes: Any) -> bytes:
    """Return what Gitea sends of a push, or something that differs."""
    told = {
        "ref": "refs/heads/main",
        "after": COMMIT,
        "repository": {"name": API, "full_name": f"sjzy/{API}"},
        "pusher": {"login": "somebody"},
        **changes,
    }
    return json.dumps(told).encode()


def headers(body: bytes, name: str = API, **changes: str | None) -> dict[str, str]:
    """Return the right headers of a delivery, or ones that differ; None leaves one out."""
    right = {
        "x-gitea-event": "push",
        "x-gitea-delivery": hashlib.sha256(body).hexdigest()[:32],
        "x-gitea-signature": hmac.new(keys.hook_secret(KEY, name).encode(), body, hashlib.sha256).hexdigest(),
        "authorization": f"Bearer {keys.hook_token(KEY, name)}",
        **{header.replace("_", "-"): value for header, value in changes.items()},
    }
    return {header: value for header, value in right.items() if value is not None}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(KEY, "sjzy", {API: "main", "web": "release"}, tmp_path / "seen")


def test_a_signed_push_to_the_release_branch_passes(gate: Gate) -> None:
    body = payload()
    assert gate.check(headers(body), body) == Push(API, COMMIT, "somebody")


@pytest.mark.parametrize(
    ("body", "changes", "status", "reason"),
    [
        (payload(), {"x_gitea_signature": None}, 403, "unsigned"),
        (payload(), {"x_gitea_signature": "0" * 64}, 403, "wrongly signed"),
        (payload(), {"x_gitea_signature": "ä"}, 403, "wrongly signed"),
        (payload(), {"authorization": None}, 403, "wrong token"),
        (payload(), {"authorization": f"Bearer {keys.hook_token(KEY, 'web')}"}, 403, "wrong token"),
        (payload(), {"x_gitea_event": "create"}, 422, "only pushes start a job"),
        (payload(), {"x_gitea_delivery": None}, 409, "this delivery came before"),
        (payload(ref="refs/heads/other"), {}, 422, "refs/heads/other of Some.Api is not released, only main is"),
        (payload(ref="refs/tags/main"), {}, 422, "refs/tags/main of Some.Api is not released, only main is"),
        (payload(after="0" * 40), {}, 422, "is not released"),
        (payload(repository={"name": API, "full_name": f"mallory/{API}"}), {}, 404, "there is no project 'Some.Api'"),
        (b"no json", {}, 403, "wrongly signed"),
        (b"[]", {}, 403, "wrongly signed"),
    ],
)
def test_bad_deliveries_start_nothing(
    gate: Gate, body: bytes, changes: dict[str, str | None], status: int, reason: str
) -> None:
    with pytest.raises(RefusedPushError, match=reason) as caught:
        gate.check(headers(body, API, **changes), body)
    assert caught.value.status == status
    assert not gate.seen.exists()


def test_an_unknown_project_is_refused_although_it_is_signed(gate: Gate) -> None:
    body = payload(repository={"name": "new", "full_name": "sjzy/new"})
    with pytest.raises(RefusedPushError, match="there is no project 'new'") as caught:
        gate.check(headers(body, "new"), body)
    assert caught.value.status == HTTPStatus.NOT_FOUND


def test_a_changed_body_breaks_the_signature(gate: Gate) -> None:
    body = payload()
    with pytest.raises(RefusedPushError, match="wrongly signed"):
        gate.check(headers(body), body + b" ")


def test_a_replay_is_refused_by_its_number_and_by_its_content_also_after_a_restart(gate: Gate) -> None:
    body = payload()
    gate.check(headers(body), body)
    again = Gate(gate.key, gate.owner, gate.branches, gate.seen)
    for changes in ({}, {"x_gitea_delivery": "another"}):
        with pytest.raises(RefusedPushError, match="this delivery came before"):
            again.check(headers(body, **changes), body)
    other = payload(after="d" * 40)
    with pytest.raises(RefusedPushError, match="this delivery came before"):
        again.check(headers(other, x_gitea_delivery=headers(body)["x-gitea-delivery"]), other)
    assert again.check(headers(other), other).commit == "d" * 40


# Jobs.


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., Runner]:
    def make(*commands: str, **own: str) -> Runner:
        stages = tuple(Stage(f"Stage {index}", command) for index, command in enumerate(commands))
        variables = {"PATH": "/usr/bin:/bin", **own}
        pipelines = {"": Pipeline(stages, {"STACK": "test", "KIND": "shared"})}
        url, parameters = "http://127.0.0.1:1", {"STACK": "demo"}
        program = Program(tmp_path)
        return Runner(tmp_path / "jobs", program, pipelines, url=url, variables=variables, parameters=parameters)

    return make


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stages_run_in_order_with_what_jenkins_tells_them(runner: Callable[..., Runner]) -> None:
    made = runner('echo "$PROJECT $COMMIT $STACK $KIND"', 'echo "$BUILD_URL $JOB_BASE_NAME $PIPELINE_WORKSPACE"')
    build = made.start(Push(API, COMMIT, ""))
    wait(lambda: build.result == SUCCESS)
    log = build.log.read_text()
    assert f"{API} {COMMIT} demo shared" in log
    assert f"http://127.0.0.1:1/job/{API}/1/ {API} " in log
    assert log.endswith("Finished: SUCCESS\n")


def test_the_first_stage_that_fails_is_the_last(runner: Callable[..., Runner]) -> None:
    build = runner("echo the reason; exit 3", "echo not reached").start(Push(API, COMMIT, ""))
    wait(lambda: build.result == FAILURE)
    log = build.log.read_text()
    assert "the reason\n[Stage 0] ended with exit code 3\nFinished: FAILURE\n" in log
    assert "not reached\n" not in log.replace("echo not reached", "")
    assert build.stage == "Stage 0"


def test_builds_of_one_project_wait_for_each_other_and_projects_do_not(
    runner: Callable[..., Runner], tmp_path: Path
) -> None:
    command = f"touch {tmp_path}/$PROJECT-$BUILD_NUMBER; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    made = runner(command)
    first, second = (made.start(Push(API, commit * 40, "")) for commit in "ab")
    other = made.start(Push("web", "c" * 40, ""))
    wait(lambda: (tmp_path / f"{API}-1").exists() and (tmp_path / "web-1").exists())
    assert not (tmp_path / f"{API}-2").exists()
    assert second.result == "QUEUED"
    (tmp_path / "go").touch()
    wait(lambda: all(each.result == SUCCESS for each in (first, second, other)))
    assert (first.number, second.number, other.number) == (1, 2, 1)


# The server.


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PIPELINE_WEBHOOK_KEY", KEY)
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / f"{API}.yaml").write_text("kind: backend\n")
    (tmp_path / "pipeline.yaml").write_text(
        "gitea: {url: 'http://127.0.0.1:9', owner: sjzy}\n"
        "jenkins: {url: 'http://127.0.0.1:9'}\nregistry: a.example.com\n"
    )
    made = serve(Program(tmp_path), tmp_path / "runner", "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()
    thread.join()


def test_over_http(server: str) -> None:
    body = payload()
    with httpx2.Client(base_url=server, trust_env=False) as client:
        unsigned = client.post(TRIGGER_PATH, content=body, headers=headers(body, x_gitea_signature=None))
        assert (unsigned.status_code, unsigned.json()) == (403, {"refused": "unsigned"})
        assert client.post(TRIGGER_PATH, content=b"x" * (1024 * 1024 + 1)).status_code == 413
        assert client.post("/other", content=body, headers=headers(body)).status_code == 404
        assert client.get("/").json() == {"builds": []}
        assert client.post(TRIGGER_PATH, content=body, headers=headers(body)).status_code == 201
        assert client.post(TRIGGER_PATH, content=body, headers=headers(body)).status_code == 409
        (build,) = client.get("/").json()["builds"]
        assert (build["job"], build["number"], build["commit"]) == (API, 1, COMMIT)
        wait(lambda: client.get("/").json()["builds"][0]["result"] == FAILURE)
        log = client.get(f"/job/{API}/1/").text
        assert "[Checkout] ended with exit code 1" in log
        assert "git fetch of http://127.0.0.1:9/sjzy/Some.Api.git failed" in log
        assert client.get("/job/other/1/").status_code == client.get(f"/job/{API}/x").status_code == 404


# The Jenkinsfiles.


def test_our_jenkinsfiles_have_the_form_that_is_understood() -> None:
    shared = parse(ROOT / "pipeline" / "Jenkinsfile")
    assert all(stage.command.startswith("python -m pipeline ") for stage in shared.stages)
    pushed = [stage.command.split() for stage in shared.stages if stage.applies({**PARAMETERS, "COMMIT": COMMIT})]
    assert [words[3] for words in pushed] == ["checkout", "build", "push", "deploy"]
    assert "test" in pushed[-1]
    again = [stage.command.split()[3] for stage in shared.stages if stage.applies({"TAG": "1", "STACK": "uat"})]
    assert again == ["deploy"]
    config = parse(ROOT / "pipeline" / "config.Jenkinsfile")
    assert [stage.command.split()[3] for stage in config.stages] == ["config"]


@pytest.mark.parametrize("condition", ["params.OTHER == ''", "env.TAG == ''", "params.TAG != ''", "check()", "a b"])
def test_other_conditions_are_refused(condition: str) -> None:
    with pytest.raises(UnknownFormError, match="is not understood"):
        Stage("A", "a", condition).applies(PARAMETERS)


def test_another_form_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "Jenkinsfile"
    file.write_text("pipeline { stages {\n stage('A') {\n sh 'a'\n sh 'b'\n } } }")
    with pytest.raises(UnknownFormError, match=r"stage\('A'\) \{ has 2 commands and 0 conditions"):
        parse(file)
    file.write_text("pipeline { stages {\n stage('A') {\n when { branch 'x' }\n sh 'a'\n } } }")
    with pytest.raises(UnknownFormError, match="has 1 commands and 0 conditions"):
        parse(file)
    file.write_text("node { }")
    with pytest.raises(UnknownFormError, match="has no stage"):
        parse(file)
