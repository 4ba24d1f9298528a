"""The chain, run for real: a push to Gitea becomes an image in the registry, and a release on the cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.demo import API, CONFIG_FILE, NAME, OTHER_API, PAGE, Demo
from devcluster.job_runner import FAILURE, SUCCESS
from devcluster.progress import Progress
from tests.cluster.embedded import Cluster
from tests.cluster.program import Program

pytestmark = pytest.mark.soak
LEAST_REQUESTS = 100
"""Five seconds of them: no build and release is quicker."""


@pytest.fixture(scope="module")
def demo(cluster: Cluster, deployed: tuple[Program, dict[str, str]]) -> Iterator[Demo]:
    """Gitea, the job runner and the stack `demo`, on a cluster whose ingress is up; one release runs."""
    deployed[0].wait_until_settled()
    made = Demo(cluster.instance, Progress())
    try:
        made.start()
        assert made.apply_webhooks().count(" is made\n") == len(made.projects) + 1
        commit = made.push_release(API, "first")
        built = made.wait_for_build(API, commit)
        assert built["result"] == SUCCESS, made.log(built)
        yield made
    finally:
        made.stop()
        namespace = f"package-{NAME}"
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait", "--timeout=180s")


def tag(demo: Demo, project: str) -> str:
    """Return what a sample back end calls itself."""
    return str(json.loads(demo.answer(project))["tag"])


def test_a_push_changes_the_answer_without_a_lost_request(demo: Demo) -> None:
    with demo.load(API) as load:
        built = demo.wait_for_build(API, demo.push_release(API, "second"))
        assert built["result"] == SUCCESS, demo.log(built)
        assert tag(demo, API) == "second"
    sent = load()
    assert sent.requests >= LEAST_REQUESTS, sent
    assert sent.failed == 0, sent


def test_a_push_that_breaks_it_ends_red_with_the_reason_and_the_old_version_serves(demo: Demo) -> None:
    before = tag(demo, API)
    with demo.load(API) as load:
        built = demo.wait_for_build(API, demo.push_release(API, "broken", crash=True))
        assert built["result"] == FAILURE
        assert built["stage"] == "Deploy test"
        assert tag(demo, API) == before
    sent = load()
    assert sent.requests >= LEAST_REQUESTS, sent
    assert sent.failed == 0, sent
    log = demo.log(built)
    assert "CrashLoopBackOff" in log
    assert "cannot open database" in log, "the application's own last words"


def test_two_pushes_to_two_projects_at_once_both_arrive(demo: Demo) -> None:
    pushed = {name: demo.push_release(name, "first") for name in (OTHER_API, PAGE)}
    for name, commit in pushed.items():
        built = demo.wait_for_build(name, commit)
        assert built["result"] == SUCCESS, demo.log(built)
    assert tag(demo, OTHER_API) == "first"
    assert '<meta name="tag" content="first">' in demo.answer(PAGE)


def test_a_push_to_the_config_repository_releases_the_projects_that_it_concerns(demo: Demo) -> None:
    before = json.loads(demo.answer(API))
    commit = demo.push(demo.config, {CONFIG_FILE: '{"PageSize": 100}\n'}, "Longer pages")
    built = demo.wait_for_build(demo.config, commit)
    log = demo.log(built)
    assert built["result"] == SUCCESS, log
    assert [line for line in log.splitlines() if "changes" in line] == [
        f"{commit[:12]} changes the configuration of {API}"
    ]
    after = json.loads(demo.answer(API))
    assert after["tag"] == before["tag"]
    assert after["config"] != before["config"]


def test_its_secrets_are_in_no_log(demo: Demo) -> None:
    files = [path for folder in (*demo.instance.services, demo.folder) for path in Path(folder).rglob("*.log")]
    assert files
    for secret in (demo.gitea.token_file, demo.folder / "webhook-key"):
        assert not [path for path in files if secret.read_text() in path.read_text(errors="replace")]
