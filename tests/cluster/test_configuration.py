"""Configuration on a real cluster, under load: a commit is a release, it goes back, and no pod is ever without its own.

The sample back end tells the first digits of the hash of its configuration file in every answer.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request, Results
from tests.cluster.program import Program
from tests.cluster.releasing import Release
from tests.unit.config_checkout import Checkout

API, NAME = "SJZY.Package.Api", "sjzy-package-api"
FRONT_END, PAGE = "packet", "/env.js"
RATE = 100
HEAD_START_SECONDS = 2.0
WAIT_SECONDS = 120.0
SLOW_SECONDS = 45
"""Between two steps of the slow rollout: a pod that is started again has that long to become ready."""
FILE = f"test/{API}/appsettings.json"
FIRST, SECOND = ('{"Region": "north"} // the first\n', '{"Region": "south"}\n')
FIELDS = """
env: {CONFIG_FILE: /app/config/appsettings.json}
config:
  mount: /app/config
  files: [appsettings.json]
"""
FRONT_END_FIELDS = f"""
config:
  files: [{{file: env.js, path: /usr/share/nginx/html{PAGE}}}]
"""


@pytest.fixture
def release(program: Program) -> Iterator[Release]:
    """The command for the stack `test`."""
    command = Release(program)
    yield command
    command.wait_until_gone()


@pytest.fixture
def checkout(program: Program, tmp_path: Path) -> Checkout:
    """The config repository, which the stack reads; the next test begins without it."""
    made = Checkout(tmp_path / "config")
    made.commit({FILE: FIRST, "common/env.js": "window.env = 'first'\n"})
    program.config_set("configPath", str(made.folder))
    return made


def told(text: str) -> str:
    """Return what the sample tells of a configuration file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def configs(results: Results) -> list[str]:
    """Return which configurations have answered, in the order of their first answer."""
    return list(dict.fromkeys(json.loads(hit.body).get("config", "") for hit in results.hits))


def config_maps(program: Program, project: str) -> set[str]:
    names = {item["metadata"]["name"] for item in program.get("configmaps")}
    return {name for name in names if name.startswith(f"{project}-config-")}


def pods(program: Program) -> dict[str, dict[str, Any]]:
    """Return the back end's pods that are not leaving."""
    return {
        item["metadata"]["name"]: item
        for item in program.get("pods")
        if item["metadata"]["labels"].get("app.kubernetes.io/name") == NAME
        and "deletionTimestamp" not in item["metadata"]
    }


def of_release(program: Program, revision: str, *, but: str = "") -> list[str]:
    """Return the ready pods of a release, without one of them."""
    return [
        name
        for name, pod in pods(program).items()
        if name != but
        and pod["metadata"]["labels"]["release"] == revision
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
    ]


def until_there(program: Program, revision: str, count: int, *, but: str = "") -> list[str]:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(found := of_release(program, revision, but=but)) < count:
        assert time.monotonic() < deadline, f"{count} ready pods of {revision} did not come: {list(pods(program))}"
        time.sleep(0.3)
    return found


def live_revision(release: Release) -> str:
    (status,) = release("status", API).said["projects"]
    return status["slots"]["main"]["revision"]


def load_on(program: Program, cluster: Cluster, folder: Path) -> Load:
    url, host = program.url(API)
    return Load(cluster, folder, [Request(url, host), Request(url, host, "POST")], RATE)


def test_a_commit_alone_is_a_release_that_loses_nothing_and_goes_back(
    program: Program, release: Release, checkout: Checkout, cluster: Cluster, tmp_path: Path
) -> None:
    program.append(API, FIELDS)
    program.up()
    program.wait_until_settled()
    assert json.loads(program.answer(API).text)["config"] == told(FIRST)
    first, tag = checkout.git("rev-parse", "HEAD"), program.tags[API]
    load = load_on(program, cluster, tmp_path / "load")
    with load:
        time.sleep(HEAD_START_SECONDS)
        second = checkout.commit({FILE: SECOND})
        made = release("deploy", API, tag)
        program.wait_until_settled()
        between = config_maps(program, NAME)
        undone = release("rollback", API)
        program.wait_until_settled()
        load.until(3000)
    results = load.results()
    assert not results.failed, results.summary()
    assert set(configs(results)) == {told(FIRST), told(SECOND)}
    assert {json.loads(hit.body)["config"] for hit in results.hits[-50:]} == {told(FIRST)}
    assert (made.said["config"], made.said["configBefore"]) == (second, first)
    assert (undone.said["config"], undone.said["configBefore"]) == (first, second)
    assert len(between) == len(config_maps(program, NAME)) == 1, "what no pod needs is gone"
    assert between != config_maps(program, NAME)
    (live, previous, *_) = release("history", API).said["releases"]
    assert [(each["tag"], each["config"]) for each in (live, previous)] == [(tag, first), (tag, second)]


@pytest.mark.soak
def test_a_commit_that_is_not_about_a_project_leaves_it_alone(program: Program, checkout: Checkout) -> None:
    program.append(API, FIELDS)
    program.up()
    program.wait_until_settled()
    before = program.identities()
    checkout.commit({"test/Another.Api/appsettings.json": "1"})
    program.up()
    program.wait_until_settled()
    assert program.identities() == before


@pytest.mark.soak
def test_an_old_pod_that_starts_again_in_the_middle_of_a_rollout_finds_its_configuration(
    program: Program, release: Release, checkout: Checkout, cluster: Cluster, tmp_path: Path
) -> None:
    program.append(API, f"{FIELDS}rollout: {{minReadySeconds: {SLOW_SECONDS}}}\n")
    program.up()
    program.wait_until_settled()
    old, tag = live_revision(release), program.tags[API]
    (name,) = config_maps(program, NAME)
    load = load_on(program, cluster, tmp_path / "load")
    with load:
        time.sleep(HEAD_START_SECONDS)
        checkout.commit({FILE: SECOND})
        with release.started("deploy", API, tag) as process:
            deadline = time.monotonic() + WAIT_SECONDS
            while not (new := {pod["metadata"]["labels"]["release"] for pod in pods(program).values()} - {old}):
                assert time.monotonic() < deadline, "no pod of the new release came"
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.3)
            (fresh,) = new
            until_there(program, fresh, 1)
            victim, *_ = of_release(program, old)
            program.cluster.kubectl("delete", "pod", victim, f"--namespace={program.namespace}", "--wait=false")
            until_there(program, old, 2, but=victim)
            assert {name} < config_maps(program, NAME), "both are there while both releases have pods"
            output, errors = process.communicate(timeout=WAIT_SECONDS + 4 * SLOW_SECONDS)
        assert process.returncode == 0, f"{output}\n{errors}"
    results = load.results()
    assert not results.failed, results.summary()
    assert set(configs(results)) == {told(FIRST), told(SECOND)}
    program.wait_until_settled()
    assert name not in config_maps(program, NAME), "the old pods are gone, and nobody needs it"


@pytest.mark.soak
def test_a_warm_colour_keeps_its_configuration(program: Program, checkout: Checkout) -> None:
    program.append(FRONT_END, FRONT_END_FIELDS)
    program.up()
    program.wait_until_settled()
    assert program.answer(FRONT_END, PAGE).text == "window.env = 'first'\n"
    first = config_maps(program, FRONT_END)
    checkout.commit({"common/env.js": "window.env = 'second'\n"})
    program.up()
    program.wait_until_settled()
    assert program.answer(FRONT_END, PAGE).text == "window.env = 'second'\n"
    assert first < config_maps(program, FRONT_END)
    checkout.commit({"common/env.js": "window.env = 'third'\n"})
    program.up()
    program.wait_until_settled()
    assert program.answer(FRONT_END, PAGE).text == "window.env = 'third'\n"
    assert not first & config_maps(program, FRONT_END)


@pytest.mark.soak
def test_a_bad_file_changes_nothing(program: Program, release: Release, checkout: Checkout) -> None:
    program.append(API, FIELDS)
    program.up()
    program.wait_until_settled()
    before = program.identities()
    checkout.commit({FILE: '{\n"Region": }'})
    refused = release("deploy", API, program.tags[API], code=2)
    assert f"{checkout.folder}/{FILE}:line 2: not readable as JSON" in refused.progress
    failed = program.up(check=False)
    assert failed.returncode != 0
    assert f"{FILE}:line 2: not readable as JSON" in failed.stdout + failed.stderr
    assert program.identities() == before
