"""The smoke checks: what is asked, and what stops a release."""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest
from lightkube.config.kubeconfig import KubeConfig, SingleConfig

import api_server
import smoke
from model.environment import Environment, Registry
from model.names import ASSET_BRIDGE_HEADER
from model.plan import SlotPlan
from model.project import BackendProject, BlueGreen, SmokeCheck
from model.release import Release, Slot
from model.stack import Application

ENVIRONMENT = Environment(name="test", namespace="n", domain="example.com", registry=Registry(host="h.example.com"))
GREEN = SlotPlan(name="green", content=Slot(release=Release(tag="2")), change="declare")
PROXY = "/api/v1/namespaces/n/services/some-api-green:http/proxy"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(smoke.pulumi, "info", str)


def run(answers: Mapping[str, tuple[int, str]], *checks: SmokeCheck) -> list[str]:
    """Return what was asked."""
    asked: list[str] = []

    def ask(path: str) -> tuple[int, str]:
        asked.append(path)
        return answers[path.removeprefix(PROXY)]

    project = BackendProject(kind="backend", strategy="blueGreen", blue_green=BlueGreen(smoke=checks))
    application = Application(gitea_name="Some.Api", file="f", project=project, image=None)
    smoke.check(ENVIRONMENT, ask)(application, GREEN)
    return asked


def test_all_checks_go_to_the_new_pods() -> None:
    checks = SmokeCheck(path="/ready"), SmokeCheck(path="/login", status=401, contains="sign in")
    answers = {"/ready": (200, ""), "/login": (401, "please sign in")}
    assert run(answers, *checks) == [f"{PROXY}/ready", f"{PROXY}/login"]


def test_without_checks_nothing_is_asked() -> None:
    assert run({}) == []


@pytest.mark.parametrize("strategy", ["rolling", "canary"])
def test_where_nothing_stands_beside_what_serves_nothing_is_asked(strategy: Literal["rolling", "canary"]) -> None:
    green = BlueGreen(smoke=(SmokeCheck(path="/ready"),))
    project = BackendProject(kind="backend", strategy=strategy, blue_green=green)
    application = Application(gitea_name="Some.Api", file="f", project=project, image=None)

    def ask(path: str) -> tuple[int, str]:
        raise AssertionError(path)

    smoke.check(ENVIRONMENT, ask)(application, GREEN)


@pytest.mark.parametrize(
    ("answer", "said"),
    [((500, "ok"), "answered 500 and not 200"), ((200, "no"), "answered without 'ok'")],
)
def test_a_wrong_answer_stops_the_release(answer: tuple[int, str], said: str) -> None:
    with pytest.raises(smoke.SmokeError, match=rf"Some\.Api: the new pods \(2\) get no traffic, as /ready {said}"):
        run({"/ready": answer}, SmokeCheck(path="/ready", contains="ok"))


def test_a_service_that_does_not_know_its_pods_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "PATIENCE_SECONDS", 20.0)
    later = iter([(503, "no endpoints available"), (200, "")])
    project = BackendProject(
        kind="backend", strategy="blueGreen", blue_green=BlueGreen(smoke=(SmokeCheck(path="/ready"),))
    )
    application = Application(gitea_name="Some.Api", file="f", project=project, image=None)
    smoke.check(ENVIRONMENT, lambda _: next(later))(application, GREEN)
    assert next(later, None) is None


CONTENT = """\
apiVersion: v1
kind: Config
clusters: [{name: own, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: own, user: {token: hidden-token}}]
contexts: [{name: own, context: {cluster: own, user: own}}]
current-context: own
"""


def configure(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    """Let the stack file have these values for Pulumi's default provider."""

    def config(_: str) -> Mapping[str, str]:
        return values

    monkeypatch.setattr(smoke.pulumi, "Config", config)


def test_a_cluster_of_the_stacks_own_is_asked_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/of/another/cluster")
    configure(monkeypatch, {"context": "of-another"})
    ask = smoke.connect(CONTENT)
    status, said = ask("/readyz")
    assert status == 502
    assert "refused" in said.lower() or "connect" in said.lower()


@pytest.mark.parametrize("config", [{}, {"kubeconfig": CONTENT, "context": "other"}, {"kubeconfig": "{clusters: ["}])
def test_no_cluster_is_an_error_of_one_line_that_shows_no_secret(
    config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    configure(monkeypatch, config)
    with pytest.raises(smoke.SmokeError, match="no cluster is found to ask for its pods") as caught:
        smoke.connect()
    assert "hidden-token" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_content_of_a_kubeconfig_may_be_in_the_stack_file(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, {"kubeconfig": CONTENT})
    assert smoke.connect()("/readyz")[0] == 502


def account(folder: Path) -> Path:
    """Return what a pod is given as its own account, of a cluster that is not the one that is named."""
    folder.mkdir()
    for name, text in (("token", "t"), ("ca.crt", ""), ("namespace", "n")):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("named", [True, False])
def test_without_kubeconfig_the_usual_file_comes_before_the_pods_own_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, named: bool
) -> None:
    """As for Pulumi's default provider: otherwise a job in a pod would change one cluster and ask another."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    configure(monkeypatch, {})
    asked: list[str] = []

    def client(chosen: SingleConfig, *_: object) -> None:
        asked.append(chosen.cluster.server)

    monkeypatch.setattr(api_server, "Client", client)
    own = KubeConfig.from_service_account(account(tmp_path / "account"))

    def of_pod(**_: object) -> KubeConfig:
        return own

    monkeypatch.setattr(KubeConfig, "from_service_account", of_pod)
    if named:
        (tmp_path / ".kube").mkdir()
        (tmp_path / ".kube" / "config").write_text(CONTENT, encoding="utf-8")
    smoke.connect()
    assert asked == ["http://127.0.0.1:9" if named else "https://192.0.2.1:443"]


def test_a_front_ends_new_pods_answer_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers[ASSET_BRIDGE_HEADER])
            self.send_response(204)
            self.end_headers()

    configure(monkeypatch, {})
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert smoke.connect(CONTENT.replace(":9", f":{server.server_port}"))("/own")[0] == 204
        server.shutdown()
    assert asked == ["1"]
