"""Blue-green and canary releases under load, by plain `pulumi up`: nothing is lost, nothing is mixed, and it goes back.

Samples by default; `PACKAGE_PLATFORM_SOAK=1` sends the whole number that the issue asks for.
"""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model.release import INSTRUCTION_VARIABLE, RECORD_ANNOTATION, Record, parse_record
from tests.cluster.embedded import Cluster
from tests.cluster.load import Load, Request, Results
from tests.cluster.program import Program
from tests.cluster.test_rolling import API, FRONT_END, HEAD_START_SECONDS, SOAK, release

RATE = 300 if SOAK else 200
LEAST_REQUESTS = 20_000 if SOAK else 3_000
LONGEST_OVERLAP_SECONDS = 2.0
"""From the first answer of the new release to the last request that the old one answered: the time in which the proxy
learns of the new endpoints (some 0.1 s), with room for a busy machine."""
GONE_SECONDS = 40.0
"""Much longer than an update takes that has nothing to wait for, also on a busy machine."""
ASSET = re.compile(r'"(assets/[^"]+\.js)"')


def record_of(program: Program, name: str) -> Record:
    (service,) = (each for each in program.get("services") if each["metadata"]["name"] == name)
    record = parse_record(service["metadata"]["annotations"][RECORD_ANNOTATION])
    assert record is not None
    return record


def pods_of(program: Program, name: str) -> dict[str, str]:
    """Return the project's pods that are not leaving: name → slot."""
    return {
        item["metadata"]["name"]: item["metadata"]["labels"]["slot"]
        for item in program.get("pods")
        if item["metadata"]["labels"].get("app.kubernetes.io/name") == name
        and "deletionTimestamp" not in item["metadata"]
    }


def overlap_seconds(results: Results, old: str, new: str) -> float:
    """Return how long both releases answered."""
    first = min(hit.time for hit in results.hits if hit.tag == new)
    last = max(hit.time for hit in results.hits if hit.tag == old)
    return (last - first).total_seconds()


def ask_for_a_replaced_release(program: Program, before: str, new: str) -> None:
    """Ask for it without the config by which all tests may go back: nothing changes; then say that it is meant."""
    program.set_tag(FRONT_END, before)
    program.pulumi("config", "rm", "package-platform:allowOlder")
    identities = program.identities()
    refused = program.up(check=False)
    assert refused.returncode != 0
    where = f"{program.stack_file.name}:package-platform:tags.{FRONT_END}"
    assert f"{where}: {before} was replaced by {new}, which runs" in refused.stdout
    assert program.identities() == identities
    program.pulumi("config", "set", "package-platform:allowOlder", f"{FRONT_END}:{before}")


def test_blue_green_moves_all_traffic_at_once_and_back_on_purpose_without_starting_a_pod(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    before, new = program.tags[FRONT_END], program.other_tag(FRONT_END)
    load = Load(cluster, tmp_path, [Request(*program.url(FRONT_END))], RATE)
    with load:
        time.sleep(HEAD_START_SECONDS)
        release(program, FRONT_END)
        released, pods = record_of(program, FRONT_END), pods_of(program, FRONT_END)
        load.until(LEAST_REQUESTS // 2)
    forth = load.results()
    ask_for_a_replaced_release(program, before, new)
    with load:
        time.sleep(HEAD_START_SECONDS)
        program.up()
        load.until(LEAST_REQUESTS // 2)
    back = load.results()
    assert not forth.failed, forth.summary()
    assert not back.failed, back.summary()
    assert len(forth.hits) + len(back.hits) >= LEAST_REQUESTS
    assert (forth.tags, back.tags) == ([before, new], [new, before])
    assert overlap_seconds(forth, before, new) < LONGEST_OVERLAP_SECONDS
    assert overlap_seconds(back, new, before) < LONGEST_OVERLAP_SECONDS
    assert set(released.slots) == {"blue", "green"}
    assert record_of(program, FRONT_END).live != released.live
    assert pods_of(program, FRONT_END) == pods, "a rollback to warm pods starts none"


def script_of(program: Program) -> str:
    page = program.answer(FRONT_END)
    (asset,) = ASSET.findall(page.text)
    return asset


def ask_slot(cluster: Cluster, program: Program, slot: str, path: str) -> str:
    """Ask a slot's pods by way of the API server."""
    service = f"/api/v1/namespaces/{program.namespace}/services/{FRONT_END}-{slot}:http/proxy/{path}"
    return cluster.kubectl("get", "--raw", service)


def test_pages_of_both_releases_find_their_assets_at_both(program: Program, cluster: Cluster) -> None:
    old_script = script_of(program)
    release(program, FRONT_END)
    new_script = script_of(program)
    assert old_script != new_script
    assert program.answer(FRONT_END, f"/{old_script}").status_code == 200, "a page that was loaded before the switch"
    live = record_of(program, FRONT_END).live
    old = "green" if live == "blue" else "blue"
    own = {slot: ask_slot(cluster, program, slot, "") for slot in (live, old)}
    assert own[live] != own[old]
    for script in (old_script, new_script):
        assert ask_slot(cluster, program, live, script) == ask_slot(cluster, program, old, script)
    assert cluster.kubectl(
        "get", "--raw",
        f"/api/v1/namespaces/{program.namespace}/services/{FRONT_END}-{old}:http/proxy/assets/none.js", check=False,
    ) == "", "what nobody has stays missing"  # fmt: skip


WARM = ("strategy: blueGreen\n", {"live": "blue", "blue": 2, "main": 2})
PAIR = ("strategy: blueGreen\nblueGreen: {after: both}\n", {"live": "green", "blue": 2, "green": 2})
CANARY = ("strategy: canary\n", {"live": "main", "main": 2})
ROLLING = ("strategy: rolling\n", {"live": "main", "main": 2})
STRATEGIES = (WARM, PAIR, CANARY, ROLLING) if SOAK else (WARM, CANARY, ROLLING)
"""What a project goes through, with the live slot and the pods of each slot after the release."""


def test_a_project_goes_through_all_strategies_and_loses_nothing(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    url, host = program.url(API)
    requests = [Request(url, host), Request(url, host, "POST"), Request(f"{url}?delay=1s", host, "POST")]
    files = program.projects()
    tags = [program.tags[API]]
    slots: list[dict[str, Any]] = []
    with Load(cluster, tmp_path, requests, RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        for strategy, _ in STRATEGIES:
            program.restore_projects(files)
            program.append(API, strategy)
            # The strategy by itself changes nothing; the next release goes by it.
            release(program, API)
            tags.append(program.tags[API])
            slots.append({"live": record_of(program, "sjzy-package-api").live, **_count(program)})
        load.until(LEAST_REQUESTS)
    results = load.results()
    assert not results.failed, results.summary()
    assert len(results.hits) >= LEAST_REQUESTS
    assert set(results.tags) == set(tags)
    assert {hit.tag for hit in results.hits[-50:]} == {tags[-1]}
    assert slots == [expected for _, expected in STRATEGIES]


def _count(program: Program) -> dict[str, int]:
    slots = list(pods_of(program, "sjzy-package-api").values())
    return {slot: slots.count(slot) for slot in sorted(set(slots))}


@pytest.mark.soak
def test_a_canary_gets_its_share_and_is_promoted_or_aborted_without_loss(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    program.append(API, "strategy: canary\n")
    program.up()
    stable, new = program.tags[API], program.other_tag(API)
    text = program.stack_file.read_text()
    url, host = program.url(API)
    shares: dict[str, float] = {}

    def canary(step: str, wish: str) -> None:
        program.stack_file.write_text(text.replace("config:", f"config:\n  package-platform:canaries: {wish}", 1))
        program.up()
        program.wait_until_settled()
        with Load(cluster, tmp_path / step, [Request(url, host)], RATE) as load:
            load.until(1000)
        results = load.results()
        assert not results.failed, results.summary()
        shares[step] = sum(hit.tag == new for hit in results.hits) / len(results.hits)

    with Load(cluster, tmp_path / "all", [Request(url, host), Request(url, host, "POST")], RATE) as load:
        canary("some", f'{{{API}: {{tag: "{new}", weight: 30}}}}')
        canary("header", f'{{{API}: {{tag: "{new}", weight: 0, header: X-Canary}}}}')
        chosen = program.answer(API, headers={"X-Canary": "always"}).json()["tag"]
        canary("aborted", "{}")
        program.stack_file.write_text(text)
        program.set_tag(API, new)
        program.up()
        program.wait_until_settled()
    results = load.results()
    assert not results.failed, results.summary()
    assert 0.2 < shares["some"] < 0.4
    assert (shares["header"], chosen) == (0.0, new)
    assert shares["aborted"] == 0.0
    assert results.hits[-1].tag == new
    assert results.tags == [stable, new]


@pytest.mark.soak
def test_tidying_scales_the_warm_pods_down_and_a_rollback_starts_them_again(program: Program) -> None:
    before = program.tags[FRONT_END]
    release(program, FRONT_END)
    record = record_of(program, FRONT_END)
    instruction = {"project": FRONT_END, "action": "tidy", "records": {FRONT_END: json.loads(record.to_annotation())}}
    urn = f"urn:pulumi:{program.stack}::package-platform::package-platform:index:FrontendApp::{FRONT_END}"
    outputs, resources = program.outputs(), len(program.resources())
    program.variables[INSTRUCTION_VARIABLE] = json.dumps(instruction)
    try:
        program.up(f"--target={urn}", "--target-dependents")
    finally:
        del program.variables[INSTRUCTION_VARIABLE]
    program.wait_until_settled()
    assert set(pods_of(program, FRONT_END).values()) == {record.live}
    assert {name for name, slot in record_of(program, FRONT_END).slots.items() if not slot.warm} != set()
    assert program.outputs()["endpoints"] == outputs["endpoints"], "the other projects' outputs are as they were"
    assert len(program.resources()) == resources, "and so are the other projects"
    program.up("--expect-no-changes")
    program.set_tag(FRONT_END, before)
    program.up()
    program.wait_until_settled()
    assert record_of(program, FRONT_END).release.tag == before
    assert program.answer(FRONT_END).status_code == 200


@pytest.mark.soak
def test_a_warm_colour_whose_pods_are_gone_gets_no_traffic_until_they_are_back(
    program: Program, cluster: Cluster, tmp_path: Path
) -> None:
    """Nothing of it changes, so Pulumi by itself would wait for nothing, and move all traffic to no pod."""
    before = program.tags[FRONT_END]
    release(program, FRONT_END)
    released, new = record_of(program, FRONT_END), program.tags[FRONT_END]
    (warm,) = released.slots.keys() - {released.live}
    scale = ("scale", f"--namespace={program.namespace}", f"deployment/{FRONT_END}-{warm}")
    cluster.kubectl(*scale, "--replicas=0")
    program.wait_until_settled()
    program.set_tag(FRONT_END, before)
    with Load(cluster, tmp_path, [Request(*program.url(FRONT_END))], RATE) as load, ThreadPoolExecutor(1) as pool:
        going = pool.submit(program.up)
        time.sleep(GONE_SECONDS)
        moved = going.done() or record_of(program, FRONT_END) != released
        cluster.kubectl(*scale, "--replicas=2")
        going.result()
        load.until(LEAST_REQUESTS)
    results = load.results()
    assert not moved
    assert not results.failed, results.summary()
    assert results.tags == [new, before]
    assert record_of(program, FRONT_END).live == warm


@pytest.mark.soak
def test_a_projects_kind_may_change_and_its_objects_stay(program: Program, cluster: Cluster, tmp_path: Path) -> None:
    file = program.project_file(API)
    kinds = "deployments,services,serviceaccounts,ingresses,poddisruptionbudgets"
    before = {name: each["uid"] for name, each in program.identities(kinds).items()}
    with Load(cluster, tmp_path, [Request(*program.url(API))], RATE) as load:
        time.sleep(HEAD_START_SECONDS)
        other = "kind: frontend\nimage: back/sjzy.package.api\nstrategy: rolling"
        file.write_text(file.read_text().replace("kind: backend", other))
        program.up()
        program.wait_until_settled()
    results = load.results()
    assert not results.failed, results.summary()
    assert {name: each["uid"] for name, each in program.identities(kinds).items()} == before
    assert program.answer(API).json()["tag"] == program.tags[API]


@pytest.mark.soak
@pytest.mark.parametrize("strategy", ["blueGreen", "rolling"])
def test_a_bad_release_leaves_the_old_one_serving_and_the_next_converges(
    program: Program, cluster: Cluster, tmp_path: Path, strategy: str
) -> None:
    program.append(API, f"strategy: {strategy}\nrollout: {{progressDeadlineSeconds: 20}}\nprobes:\n"
        "  startup: {path: /healthz/startup, periodSeconds: 1, failureThreshold: 5}\n"
        "  readiness: {path: /healthz/ready}\n  liveness: {path: /healthz/live}\n")  # fmt: skip
    program.up()
    good = program.tags[API]
    with Load(cluster, tmp_path, [Request(*program.url(API))], RATE) as load:
        program.set_tag(API, "bad-crash")
        failed = program.up(check=False)
        assert failed.returncode != 0
        assert record_of(program, "sjzy-package-api").release.tag == good
        program.set_tag(API, good)
        program.up()
        release(program, API)
    results = load.results()
    assert not results.failed, results.summary()
    assert results.tags == [good, program.tags[API]]


@pytest.mark.soak
def test_a_wrong_smoke_check_keeps_the_traffic_where_it_is(program: Program) -> None:
    smoke = "strategy: blueGreen\nblueGreen: {{smoke: [{{path: /admin, contains: '{text}'}}]}}\n"
    files, good = program.projects(), program.tags[API]
    program.append(API, smoke.format(text="no answer says this"))
    program.set_tag(API, program.other_tag(API))
    failed = program.up(check=False)
    assert failed.returncode != 0
    said = f"{API}: the new pods ({program.tags[API]}) get no traffic, as /admin answered without 'no answer says this'"
    assert said in failed.stdout + failed.stderr, failed.stdout
    assert "Traceback" not in failed.stdout
    assert record_of(program, "sjzy-package-api").release.tag == good
    assert program.answer(API).json()["tag"] == good
    program.restore_projects(files)
    program.append(API, smoke.format(text=program.tags[API]))
    told = program.up()
    assert f"1 smoke checks of {program.tags[API]} are right" in told.stdout
    assert program.answer(API).json()["tag"] == program.tags[API]
