"""The commands of `release` beside deploy and rollback, on a real cluster, under load where they move traffic."""

import time
from pathlib import Path

import pytest
import yaml

from model.names import kubernetes_name
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request
from tests.cluster.program import Program
from tests.cluster.releasing import Release
from tests.cluster.test_strategies import pods_of, record_of

API = "SJZY.Package.Api"
FRONT_END = "packet"
RATE = 50
HEAD_START_SECONDS = 2.0

pytestmark = pytest.mark.soak


def wanted(program: Program, key: str) -> dict[str, object]:
    """Return one of our keys of the stack file."""
    return yaml.safe_load(program.stack_file.read_text())["config"].get(f"package-platform:{key}", {})


def test_a_canary_is_given_its_share_ended_given_again_and_promoted(
    program: Program, release: Release, cluster: Cluster, tmp_path: Path
) -> None:
    program.append(API, "strategy: canary\n")
    program.up()
    stable, new = program.tags[API], program.other_tag(API)
    live = record_of(program, kubernetes_name(API)).live
    url, host = program.url(API)
    with Load(cluster, tmp_path, [Request(url, host), Request(url, host, "POST")], RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        given = release("canary", API, new, "--weight=30")
        (status,) = release("status", API).said["projects"]
        assert wanted(program, "canaries") == {API: {"tag": new, "weight": 30}}
        with release.without_registry():
            ended = release("abort", API)
        assert wanted(program, "canaries") == {}
        release("canary", API, new, "--header=X-Canary")
        chosen = program.answer(API, headers={"X-Canary": "always"}).json()["tag"]
        promoted = release("promote", API)
        program.wait_until_settled()
        load.until(1000)
    results = load.results()
    assert not results.failed, results.summary()
    assert (given.said["live"], ended.said["live"], promoted.said["live"]) == (stable, stable, new)
    assert set(status["slots"]) == {live, "canary"}
    assert chosen == new
    assert {hit.tag for hit in results.hits[-50:]} == {new}
    assert (program.tags[API], wanted(program, "canaries")) == (new, {})


def test_tidy_scales_warm_pods_down_and_a_rollback_starts_them_again(
    program: Program, release: Release, cluster: Cluster, tmp_path: Path
) -> None:
    before, after = program.tags[FRONT_END], program.other_tag(FRONT_END)
    with Load(cluster, tmp_path, [Request(*program.url(FRONT_END))], RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        release("deploy", FRONT_END, after)
        assert set(pods_of(program, FRONT_END).values()) == {"blue", "green"}
        release("tidy", FRONT_END)
        assert set(pods_of(program, FRONT_END).values()) == {"blue", "green"}, "it is to stay warm for an hour"
        with release.without_registry():
            release("tidy", FRONT_END, "--now")
        program.wait_until_settled()
        assert set(pods_of(program, FRONT_END).values()) == {record_of(program, FRONT_END).live}
        undone = release("rollback", FRONT_END, f"--to={before}")
    results = load.results()
    assert not results.failed, results.summary()
    assert undone.said["live"] == before
    assert results.tags == [before, after]


def test_a_rollback_takes_warm_pods_as_they_ran_though_the_project_file_has_changed(
    program: Program, release: Release, cluster: Cluster, tmp_path: Path
) -> None:
    before, after = program.tags[FRONT_END], program.other_tag(FRONT_END)
    with Load(cluster, tmp_path, [Request(*program.url(FRONT_END))], RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        release("deploy", FRONT_END, after)
        there = set(pods_of(program, FRONT_END))
        program.append(FRONT_END, 'env: {WHAT_MAY_BE_WRONG: "1"}\n')
        undone = release("rollback", FRONT_END)
        kept = set(pods_of(program, FRONT_END))
        # What the file says comes as a release of its own.
        again = release("deploy", FRONT_END, before)
        program.wait_until_settled()
    results = load.results()
    assert not results.failed, results.summary()
    assert (undone.said["live"], again.said["live"]) == (before, before)
    assert kept == there, "no pod was started"
    assert "goes back to pods that are still warm, as they are" in undone.progress
    live = {name for name, slot in pods_of(program, FRONT_END).items() if slot == record_of(program, FRONT_END).live}
    assert not live & there


def test_what_is_put_back_leaves_routes_and_numbers_that_were_not_released(program: Program, release: Release) -> None:
    before, name = program.tags[API], kubernetes_name(API)

    def told() -> tuple[object, list[int]]:
        deployments = (each for each in program.get("deployments") if each["metadata"]["name"].startswith(name))
        return program.identities("ingresses")[f"Ingress/{name}"], [each["spec"]["replicas"] for each in deployments]

    was = told()
    program.add_route(API, "api", "/not-released")
    program.append(API, "replicas: 3\n")
    failed = release("deploy", API, "bad-crash", code=1)
    program.wait_until_settled()
    assert (failed.said["restored"], failed.said["live"]) == (True, before)
    assert told() == was
    release("tidy", API, "--now")
    assert told() == was
    release("deploy", API, before)
    assert told() != was


def test_a_difference_is_shown_and_the_stack_file_follows_what_runs(program: Program, release: Release) -> None:
    before, after = program.tags[API], program.other_tag(API)
    untouched = program.identities()
    shown = release("diff", API, after)
    assert after in str(shown.said)
    assert program.identities() == untouched
    release("deploy", API, after)
    assert program.tags[API] == before, "the stack file is the clone's own"
    synced = release("sync")
    assert synced.said["changed"] == {API: after}
    assert program.tags[API] == after
    assert release("sync").said["changed"] == {}


def test_the_whole_stack_goes_back_to_an_earlier_update(program: Program, release: Release) -> None:
    earlier = program.tags
    program.up()
    (update, *_) = yaml.safe_load(program.pulumi("stack", "history", "--json", "--page-size=1").stdout)
    after = program.other_tag(API)
    release("deploy", API, after)
    release("sync")
    back = release("rollback", "--all", f"--to-update={update['startTime']}")
    program.wait_until_settled()
    assert back.said["live"][API] == earlier[API]
    assert program.answer(API).json()["tag"] == earlier[API]


def test_a_lock_of_another_host_is_named_and_removed_on_purpose(program: Program, release: Release) -> None:
    folder = program.folder / "state" / ".pulumi" / "locks" / "organization" / "package-platform" / program.stack
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "00000000-0000-0000-0000-000000000000.json"
    lock.write_text('{"pid": 1, "username": "somebody", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"}')
    refused = release("deploy", API, program.tags[API], "--wait-lock=2", code=None)
    assert refused.code != 0
    assert "somebody@elsewhere" in refused.progress
    assert f"release unlock -s {program.stack}" in refused.progress
    release("unlock")
    assert not lock.exists()
    release("deploy", API, program.tags[API])
