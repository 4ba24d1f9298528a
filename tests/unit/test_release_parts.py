"""The pure parts of the command: locks, engine events, unfinished operations, history, drift."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from model.release import RECORD_ANNOTATION, REVISION_LABEL, SLOT_LABEL, ConfigRef, Record, Release, Slot
from release import history as past
from release.cluster import record_of
from release.drift import drift_of, drifted_slots
from release.events import Event, is_locked, parse_event
from release.lock import Host, Lock, is_stale, locks_told, parse_lock
from release.pending import Operation, completed, pending, to_read

BOOTED = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TAKEN = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
LOCK = Lock("l.json", "ci", "agent-1", 4711, TAKEN)
ERROR = """error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete \
the lock file with `pulumi cancel`.
  file:///state/.pulumi/locks/organization/p/test/2b.json: created by ci@agent-1 (pid 4711) at 2026-11-23T18:00:00Z"""


def host(name: str = "agent-1", booted: datetime = BOOTED, **processes: datetime) -> Host:
    return Host(name, booted, {int(pid.removeprefix("p")): at for pid, at in processes.items()})


@pytest.mark.parametrize(
    ("there", "stale"),
    [
        (host(), True),
        (host(p4711=TAKEN - timedelta(seconds=1)), False),
        (host(p4711=TAKEN + timedelta(minutes=5)), True),
        (host("agent-2"), False),
        (host(booted=TAKEN + timedelta(minutes=1)), False),
        (Host("agent-1", BOOTED, {}, sure=False), False),
    ],
    ids=["gone", "works", "another process has its number", "another host", "another boot", "perhaps another place"],
)
def test_only_a_lock_whose_holder_is_surely_gone_is_stale(there: Host, *, stale: bool) -> None:
    assert is_stale(LOCK, there) is stale


def test_a_lock_is_read_from_its_file_and_from_an_error() -> None:
    text = json.dumps({"pid": 4711, "username": "ci", "hostname": "agent-1", "timestamp": "2026-11-23T18:00:00Z"})
    assert parse_lock("l.json", text) == LOCK
    assert parse_lock("l.json", text[:20]) is None
    (told,) = locks_told(ERROR)
    assert (told.user, told.host, told.pid, told.since) == ("ci", "agent-1", 4711, TAKEN)
    # Pulumi puts the bucket's own options behind the file.
    bucket = ERROR.replace("file:///state", "s3://state").replace(".json:", ".json?endpoint=http%3A%2F%2Fs3&awssdk=v2:")
    assert [each.pid for each in locks_told(bucket)] == [4711]
    assert is_locked(ERROR)
    assert not is_locked("error: the image is missing")


def engine_event(**event: Any) -> str:
    return json.dumps({"sequence": 1, "timestamp": 0, **event})


def test_engine_events() -> None:
    urn = "urn:pulumi:test::package-platform::package-platform:index:PackageApp$kubernetes:apps/v1:Deployment::x-main"
    step = {"metadata": {"op": "update", "urn": urn, "type": "kubernetes:apps/v1:Deployment"}}
    assert parse_event(engine_event(preludeEvent={"config": {}})) == Event("begun", "")
    assert parse_event(engine_event(resourcePreEvent=step)) == Event("step", "update Deployment x-main", urn)
    said = {"message": "<{%fg 1%}>error: <{%reset%}>no room\n", "severity": "error", "urn": urn}
    assert parse_event(engine_event(diagnosticEvent=said)) == Event("error", "error: no room", urn)


@pytest.mark.parametrize(
    "line",
    [
        engine_event(resourcePreEvent={"metadata": {"op": "same", "urn": "a::b::kubernetes:core/v1:Service::x"}}),
        engine_event(resourcePreEvent={"metadata": {"op": "create", "urn": "a::b::package-platform:index:App::x"}}),
        engine_event(diagnosticEvent={"message": "[1/2] waits", "severity": "info", "ephemeral": True}),
        engine_event(summaryEvent={"resourceChanges": {}}),
        '{"sequence": 1, "diagn',
        "[]",
    ],
)
def test_events_of_no_interest(line: str) -> None:
    assert parse_event(line) is None


OPERATION: dict[str, Any] = {
    "type": "creating",
    "resource": {
        "urn": "urn:pulumi:test::p::package-platform:index:PackageApp$kubernetes:apps/v1:Deployment::x-green",
        "inputs": {"metadata": {"namespace": "package-test", "name": "x-green"}},
    },
}


def checkpoint(*operations: dict[str, Any]) -> bytes:
    return json.dumps({"version": 3, "checkpoint": {"latest": {"pending_operations": operations}}}).encode()


def test_unfinished_operations_are_found() -> None:
    creating, updating = pending(checkpoint(OPERATION, {**OPERATION, "type": "updating"}))
    assert [str(each) for each in (creating, updating)] == [
        "creating Deployment x-green",
        "updating Deployment x-green",
    ]
    assert creating.path() == "apis/apps/v1/namespaces/package-test/deployments/x-green"


def test_a_creation_that_was_cut_off_is_taken_over_or_forgotten() -> None:
    (creating,) = pending(checkpoint(OPERATION))
    updating = {"type": "updating", "resource": {"urn": "urn:other"}}
    state = {"version": 3, "deployment": {"resources": [{"urn": "urn:1"}], "pending_operations": [OPERATION, updating]}}
    taken = completed(state, [creating])["deployment"]
    assert taken["resources"] == [{"urn": "urn:1"}, {**OPERATION["resource"], "id": "package-test/x-green"}]
    assert taken["pending_operations"] == [updating]
    forgotten = completed(state, [])["deployment"]
    assert forgotten["resources"] == [{"urn": "urn:1"}]
    assert forgotten["pending_operations"] == [updating]


def test_what_is_begun_in_a_cloud_is_left_to_pulumi() -> None:
    pool = {"type": "creating", "resource": {"urn": "urn:pulumi:prod::p::alicloud:cs/nodePool:NodePool::pool"}}
    assert [str(each) for each in pending(checkpoint(pool, OPERATION))] == ["creating Deployment x-green"]
    state = {"version": 3, "deployment": {"resources": [], "pending_operations": [pool, OPERATION]}}
    assert completed(state, [])["deployment"]["pending_operations"] == [pool]


def test_what_was_changed_or_made_is_read_anew() -> None:
    creating = Operation("creating", "urn:2", "n", "x")
    updating = Operation("updating", "urn:1", "n", "y")
    assert to_read([creating, updating], [creating]) == ["urn:1", "urn:2"]
    assert to_read([creating, updating], []) == ["urn:1"]
    assert to_read([creating], []) == []


def test_a_state_without_unfinished_operations_is_not_even_parsed() -> None:
    assert pending(b'{"checkpoint": {"latest": {"resources": [') == []
    assert pending(checkpoint()) == []


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("core/v1:Service", "api/v1/namespaces/n/services/x"),
        ("networking.k8s.io/v1:Ingress", "apis/networking.k8s.io/v1/namespaces/n/ingresses/x"),
        ("policy/v1:PodDisruptionBudget", "apis/policy/v1/namespaces/n/poddisruptionbudgets/x"),
    ],
)
def test_paths_of_objects(kind: str, path: str) -> None:
    assert Operation("creating", f"urn:pulumi:test::p::a:b:C$kubernetes:{kind}::x", "n", "x").path() == path


ONE, TWO, THREE = (Release(tag=tag, digest=f"sha256:{tag}") for tag in ("1", "2", "3"))


def update(
    version: int, tag: str, message: str = "", result: str = "succeeded", kind: str = "update"
) -> dict[str, Any]:
    tags = {"packet": "9", "x": tag}
    config = {"package-platform:tags": {"value": json.dumps(tags), "objectValue": tags, "secret": False}}
    at = f"2026-11-23T18:00:0{version}Z"
    return {"version": version, "config": config, "startTime": at, "result": result, "kind": kind, "message": message}


def test_who_and_why_are_found_in_the_history_of_the_stack() -> None:
    why = past.message("deploy", "x", "3", "jenkins", "https://ci.example.com/job/x/7/")
    updates = past.parse_updates(
        [
            update(6, "3", past.message("deploy", "packet", "9", "ann@host", "")),
            update(5, "3", why),
            update(4, "2", past.message("deploy", "x", "3", "bob", "first try"), result="failed"),
            update(3, "2", kind="refresh"),
            update(2, "2", "by hand"),
            update(1, "1"),
        ]
    )
    record = Record(live="main", slots={"main": Slot(release=THREE)}, history=(THREE, TWO, ONE))
    found = past.made("x", record, updates)
    assert [(each.release.tag, each.live, each.update.version if each.update else 0) for each in found] == [
        ("3", True, 5),
        ("2", False, 2),
        ("1", False, 1),
    ]
    assert found[0].update is not None
    assert (found[0].update.who, found[0].update.why) == ("jenkins", "https://ci.example.com/job/x/7/")
    assert found[1].update is not None
    assert (found[1].update.who, found[1].update.why) == ("", "by hand")
    assert [each.version for each in past.bringing("x", updates) if each.result == "failed"] == [4]


def test_releases_of_one_tag_are_told_apart_by_their_configuration() -> None:
    def configured(version: int, commit: str, why: str) -> dict[str, Any]:
        told = update(version, "1", past.message("deploy", "x", "1", "ann", why))
        revisions = {"x": commit}
        return {**told, "config": {**told["config"], "package-platform:configRevisions": {"objectValue": revisions}}}

    second, first = (Release(tag="1", config=ConfigRef(revision=each * 40, digest=each)) for each in ("b", "a"))
    record = Record(live="main", slots={"main": Slot(release=second)}, history=(second, first))
    updates = past.parse_updates([configured(2, "b" * 40, "second"), configured(1, "a" * 8, "first")])
    found = past.made("x", record, updates)
    assert [(each.live, each.update.why if each.update else "") for each in found] == [
        (True, "second"),
        (False, "first"),
    ]


def test_a_history_that_does_not_reach_back_says_nothing() -> None:
    record = Record(live="main", slots={"main": Slot(release=ONE)}, history=(ONE,))
    (found,) = past.made("x", record, past.parse_updates([update(9, "3")]))
    assert found.update is None


RECORD = Record(
    live="green",
    slots={"green": Slot(release=TWO, revision="r2"), "blue": Slot(release=ONE, revision="r1")},
    history=(TWO, ONE),
)


def slot_deployment(name: str, revision: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"template": {"metadata": {"labels": {REVISION_LABEL: revision}}}}}


def test_no_drift() -> None:
    deployments = [slot_deployment("x-green", "r2"), slot_deployment("x-blue", "r1")]
    service = {"spec": {"selector": {REVISION_LABEL: "r2"}}}
    assert drifted_slots(RECORD, "x", deployments) == []
    assert drift_of(RECORD, "x", service, deployments) == []


def test_drift_is_told_slot_by_slot() -> None:
    service = {"spec": {"selector": {REVISION_LABEL: "r1"}}}
    assert drift_of(RECORD, "x", service, [slot_deployment("x-green", "other")]) == [
        "slot green runs revision other, not r2",
        "slot blue has no Deployment",
        "the Service selects other pods than the live slot's",
    ]
    rolling = Record(live="main", slots={"main": Slot(release=ONE, revision="r1")}, history=(ONE,))
    followed = {"spec": {"selector": {SLOT_LABEL: "main"}}}
    assert drift_of(rolling, "x", followed, [slot_deployment("x", "r1")]) == []


def test_a_record_is_read_from_its_service() -> None:
    service = {"metadata": {"name": "x", "annotations": {RECORD_ANNOTATION: RECORD.to_annotation()}}}
    assert record_of(service) == RECORD
    assert record_of({"metadata": {"name": "x"}}) is None
