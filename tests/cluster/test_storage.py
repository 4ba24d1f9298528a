"""Volumes on a real cluster: data that outlives pods, releases and its own project file, and what is refused.

The sample back end adds a line to a file in its volume at each start, and tells in every answer how many there are: one
again, as soon as the data is lost.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.embedded import Cluster
from tests.cluster.program import Program
from tests.cluster.releasing import Release

TASK, NAME = "SJZY.Package.Task.Api", "sjzy-package-task-api"
OUTPUT, OUTPUT_NAME = "SJZY.Package.Output.Api", "sjzy-package-output-api"
WAIT_SECONDS = 90.0
GONE_FIELDS = ("storage", "env", "shutdown")
KEPT = f"{NAME}-data"
OTHERS = "deployments,statefulsets,services,ingresses,poddisruptionbudgets,persistentvolumeclaims"


@pytest.fixture
def release(program: Program) -> Iterator[Release]:
    """The command for the stack `test`."""
    command = Release(program)
    yield command
    command.wait_until_gone()


def write(program: Program, project: str, *volumes: dict[str, Any], **fields: Any) -> None:
    """Give a project these volumes, and no others; its pods leave at once."""
    file = program.project_file(project)
    own = {name: value for name, value in yaml.safe_load(file.read_text()).items() if name not in GONE_FIELDS}
    own |= {"shutdown": {"preStopSeconds": 0, "drainSeconds": 5}, **fields}
    if volumes:
        own |= {"storage": list(volumes), "env": {"DATA_FOLDER": volumes[0]["mount"]}}
    file.write_text(yaml.safe_dump(own, allow_unicode=True, sort_keys=False))


def answered(program: Program, project: str) -> dict[str, Any]:
    return json.loads(program.answer(project).text)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def claims(program: Program) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in program.get("persistentvolumeclaims")}


DATA: dict[str, Any] = {"name": "data", "size": "64Mi", "mount": "/data"}


def remove(program: Program) -> str:
    """Take the project file and its tag away; return the file's text."""
    file = program.project_file(TASK)
    text = file.read_text()
    file.unlink()
    program.pulumi("config", "rm", "--path", f'tags["{TASK}"]')
    return text


@pytest.mark.soak
def test_data_outlives_the_pod_a_release_a_rollback_and_the_project_file(
    program: Program, release: Release, cluster: Cluster
) -> None:
    write(program, TASK, DATA)
    program.up()
    assert answered(program, TASK)["starts"] == 1
    there = claims(program)[KEPT]
    assert there["status"]["phase"] == "Bound"

    pod = answered(program, TASK)["pod"]
    cluster.kubectl("delete", "pod", pod, f"--namespace={program.namespace}", "--grace-period=1")
    program.wait_until_settled()
    assert answered(program, TASK)["starts"] == 2

    before, after = program.tags[TASK], program.other_tag(TASK)
    release("deploy", TASK, after)
    assert (answered(program, TASK)["starts"], answered(program, TASK)["tag"]) == (3, after)
    release("rollback", TASK)
    assert (answered(program, TASK)["starts"], answered(program, TASK)["tag"]) == (4, before)

    text = remove(program)
    said = program.up().stdout
    assert f"{TASK} is not deployed, and its volume {KEPT} (64Mi) is kept" in said
    assert not [name for name in program.identities("deployments,services") if NAME in name]
    assert claims(program)[KEPT]["metadata"]["uid"] == there["metadata"]["uid"]

    program.project_file(TASK).write_text(text)
    # From here on it may go: the next test begins without it.
    write(program, TASK, {**DATA, "reclaim": "delete"})
    program.set_tag(TASK, before)
    program.up()
    assert answered(program, TASK)["starts"] == 5
    assert claims(program)[KEPT]["metadata"]["uid"] == there["metadata"]["uid"]


@pytest.mark.soak
def test_a_class_that_the_cluster_lacks_stops_everything_before_a_change(program: Program) -> None:
    until(lambda: not claims(program), "what a test before has removed is gone")
    before = program.identities(OTHERS)
    write(program, TASK, {"name": "files", "size": "64Mi", "mount": "/files", "class": "shared"})
    refused = program.preview(check=False)
    assert refused.returncode != 0
    assert "resource 'nfs' does not exist" in refused.stdout + refused.stderr
    assert program.identities(OTHERS) == before


@pytest.mark.soak
def test_what_would_end_the_data_is_refused_until_it_is_asked_for(program: Program, release: Release) -> None:
    until(lambda: not claims(program), "what a test before has removed is gone")
    write(program, TASK, DATA)
    program.up()
    kept = claims(program)[KEPT]["metadata"]["uid"]
    seen = program.identities(OTHERS)
    write(program, TASK, {**DATA, "size": "32Mi"})
    refused = program.up(check=False)
    assert refused.returncode != 0
    assert f"projects/{TASK}.yaml:storage.0.size: can't shrink from 64Mi to 32Mi" in refused.stdout
    assert program.identities(OTHERS) == seen

    # A class that the cluster lacks does no harm without a preview either.
    write(program, TASK, {**DATA, "name": "files", "mount": "/files", "class": "shared"})
    assert program.up(check=False).returncode != 0
    assert claims(program).keys() == {KEPT}
    assert {name: each for name, each in program.identities(OTHERS).items() if NAME in name} == {
        name: each for name, each in seen.items() if NAME in name
    }

    # The volume is kept in a run that registers only its project, too.
    write(program, TASK)
    release("deploy", TASK, program.tags[TASK])
    assert claims(program)[KEPT]["metadata"]["uid"] == kept

    seen = program.identities(OTHERS)
    assert program.pulumi("destroy", "--yes", "--color=never", check=False).returncode != 0
    assert program.identities(OTHERS) == seen

    write(program, TASK, {**DATA, "reclaim": "delete"})
    program.up()
    write(program, TASK)
    program.up()
    until(lambda: KEPT not in claims(program), "the claim went with its line, as was asked for")


@pytest.mark.soak
def test_each_pod_keeps_a_volume_of_its_own_and_a_bad_release_is_put_back(
    program: Program, release: Release, cluster: Cluster
) -> None:
    write(program, OUTPUT, {"name": "cache", "size": "64Mi", "mount": "/cache", "perPod": True})
    program.up()

    def starts() -> dict[str, int]:
        found: dict[str, int] = {}

        def asked() -> bool:
            answer = answered(program, OUTPUT)
            found[answer["pod"]] = answer["starts"]
            return found.keys() == {f"{OUTPUT_NAME}-0", f"{OUTPUT_NAME}-1"}

        until(asked, "both pods answer")
        return found

    assert set(starts().values()) == {1}
    assert {f"cache-{OUTPUT_NAME}-0", f"cache-{OUTPUT_NAME}-1"} <= claims(program).keys()
    before, after = program.tags[OUTPUT], program.other_tag(OUTPUT)
    release("deploy", OUTPUT, after)
    assert set(starts().values()) == {2}
    bad = release("deploy", OUTPUT, "bad-crash", code=None)
    assert bad.code not in (0, None), bad.progress
    program.wait_until_settled()
    assert answered(program, OUTPUT)["tag"] == after
    release("rollback", OUTPUT)
    assert answered(program, OUTPUT)["tag"] == before
    status = release("status", OUTPUT).said["projects"][0]
    assert (status["pods"], status["drift"]) == ("2/2", [])
    write(program, OUTPUT)
    program.up()
    assert not [name for name in program.identities("statefulsets") if OUTPUT_NAME in name]
    assert {f"cache-{OUTPUT_NAME}-0", f"cache-{OUTPUT_NAME}-1"} <= claims(program).keys()
    cluster.kubectl("delete", "persistentvolumeclaims", "--all", f"--namespace={program.namespace}", "--wait=false")
