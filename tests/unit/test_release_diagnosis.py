"""When is a release hopeless? Pods and Deployments as a real API server told them, shortened."""

from dataclasses import replace
from typing import Any

import pytest

from model.release import REVISION_LABEL
from release.diagnosis import Diagnosis, Found, Hopeless, Limits, PodLine, event_lines, ready_text

IMAGE = "harbor.package.test/back/sjzy.package.api:2@sha256:bb"
OLD_IMAGE = "harbor.package.test/back/sjzy.package.api:1@sha256:aa"
RUNNING = {"state": {"running": {"startedAt": "2026-11-23T18:00:00Z"}}, "started": True, "ready": True}
CRASHED = {"exitCode": 2, "reason": "Error", "startedAt": "2026-11-23T18:00:00Z", "finishedAt": "2026-11-23T18:00:01Z"}
CONTAINER = {
    "name": "api",
    "image": IMAGE,
    "startupProbe": {"periodSeconds": 1, "failureThreshold": 120},
    "readinessProbe": {"httpGet": {"path": "/healthz/ready"}},
}


def deployment(image: str = IMAGE, revision: str = "new", **status: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {REVISION_LABEL: revision}},
        "spec": {"containers": [{**CONTAINER, "image": image}]},
    }
    return {
        "metadata": {"name": "api", "uid": "deployment", "generation": 2},
        "spec": {"replicas": 2, "template": template},
        "status": {"observedGeneration": 2, **status},
    }


def pod(
    status: dict[str, Any], *, image: str = IMAGE, revision: str = "new", name: str = "api-1", scheduled: str = "True"
) -> dict[str, Any]:
    """Return a pod with one container in a state."""
    condition = {"type": "PodScheduled", "status": scheduled}
    if scheduled == "False":
        condition |= {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
    ready = {"type": "Ready", "status": str(bool(status.get("ready")))}
    container = {"name": "api", "restartCount": 0, **status}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {REVISION_LABEL: revision}},
        "spec": {"containers": [{**CONTAINER, "image": image}], "nodeName": "n2" if scheduled == "True" else ""},
        "status": {
            "phase": "Pending",
            "conditions": [condition, ready],
            "containerStatuses": [container] if scheduled == "True" else [],
        },
    }


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def verdict(*pods: dict[str, Any], seconds: float = 0.0, deployed: dict[str, Any] | None = None) -> Hopeless | None:
    """Return what a release is judged to be, seen twice with so many seconds between."""
    diagnosis = Diagnosis(IMAGE)
    deployments = [deployed or deployment()]
    first = diagnosis.look(deployments, list(pods), 100.0).hopeless
    return first or diagnosis.look(deployments, list(pods), 100.0 + seconds).hopeless


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("InvalidImageName", "couldn't parse image name"),
        ("CreateContainerConfigError", 'secret "db" not found'),
        ("CreateContainerError", "exec: /app: no such file"),
        ("ErrImagePull", "rpc error: harbor.package.test/back/x:2: not found"),
        ("ImagePullBackOff", "Back-off pulling image: unauthorized"),
    ],
)
def test_what_never_mends_is_hopeless_at_once(reason: str, message: str) -> None:
    found = verdict(pod(waiting(reason, message)))
    assert found == Hopeless(reason, message, "api-1", "uid-api-1", "api")


def test_a_registry_that_does_not_answer_gets_a_moment() -> None:
    unreachable = pod(waiting("ErrImagePull", "dial tcp: connection refused"))
    assert verdict(unreachable, seconds=Limits.pull - 1) is None
    found = verdict(unreachable, seconds=Limits.pull)
    assert found is not None
    assert found.reason == "ErrImagePull"


def gated(*, known: bool = False) -> dict[str, Any]:
    """Return a pod whose container is ready, and which waits for a load balancer."""
    given = pod(RUNNING)
    gate = "target-health.alb.k8s.alibabacloud"
    given["spec"]["readinessGates"] = [{"conditionType": gate}]
    scheduled, _ = given["status"]["conditions"]
    ready = {"type": "Ready", "status": str(known), **({} if known else {"reason": "ReadinessGatesNotReady"})}
    own = [{"type": gate, "status": "True"}] if known else []
    given["status"]["conditions"] = [scheduled, ready, *own]
    return given


def test_a_load_balancer_that_never_knows_a_pod_is_named() -> None:
    assert verdict(gated(), seconds=Limits.gate - 1) is None
    found = verdict(gated(), seconds=Limits.gate)
    assert found is not None
    assert found.reason == "ReadinessGatesNotReady"
    assert "nobody has set target-health.alb.k8s.alibabacloud" in found.message
    assert "kubectl describe ingress" in found.message
    assert verdict(gated(known=True), seconds=1000) is None


def test_a_pull_that_mends_in_between_starts_its_moment_anew() -> None:
    diagnosis = Diagnosis(IMAGE)
    unreachable, creating = pod(waiting("ErrImagePull", "timeout")), pod(waiting("ContainerCreating"))
    for now, seen in ((0.0, unreachable), (10.0, creating), (14.0, unreachable), (28.0, unreachable)):
        assert diagnosis.look([deployment()], [seen], now).hopeless is None, now
    assert diagnosis.look([deployment()], [unreachable], 29.0).hopeless is not None


def test_a_crash_loop_is_hopeless_and_its_log_is_the_previous_run() -> None:
    found = verdict(pod(waiting("CrashLoopBackOff", "back-off 10s", restartCount=1, lastState={"terminated": CRASHED})))
    assert found is not None
    assert (found.reason, found.previous) == ("CrashLoopBackOff", True)
    assert found.message == "started 2 times, last ended with exit code 2"


def test_restarts_count_only_from_here_on() -> None:
    """A pod that this release finds may have been restarted for months."""
    diagnosis = Diagnosis(IMAGE)
    assert diagnosis.look([deployment()], [pod({**RUNNING, "restartCount": 7})], 0.0).hopeless is None
    assert diagnosis.look([deployment()], [pod({**RUNNING, "restartCount": 8})], 1.0).hopeless is None
    again = diagnosis.look([deployment()], [pod({**RUNNING, "restartCount": 9})], 2.0).hopeless
    assert again is not None
    assert again.reason == "CrashLoopBackOff"


def test_one_restart_of_a_new_pod_is_allowed() -> None:
    diagnosis = Diagnosis(IMAGE)
    assert diagnosis.look([deployment()], [], 0.0).hopeless is None
    once = {**RUNNING, "restartCount": 1, "lastState": {"terminated": CRASHED}}
    assert diagnosis.look([deployment()], [pod(once)], 1.0).hopeless is None


def again(exit_code: int, seconds: int, reason: str = "Error") -> dict[str, Any]:
    """Return a container that runs again and has not started, after a run of so many seconds."""
    ended = {**CRASHED, "exitCode": exit_code, "reason": reason, "finishedAt": f"2026-11-23T18:{seconds // 60:02}:01Z"}
    running: dict[str, Any] = {"state": {"running": {}}, "started": False, "ready": False, "restartCount": 1}
    return {**running, "lastState": {"terminated": ended}}


@pytest.mark.parametrize("exit_code", [0, 143, 137])
def test_a_start_that_takes_longer_than_its_probe_allows(exit_code: int) -> None:
    diagnosis = Diagnosis(IMAGE)
    assert diagnosis.look([deployment()], [], 0.0).hopeless is None
    found = diagnosis.look([deployment()], [pod(again(exit_code, 120))], 1.0).hopeless
    assert found is not None
    assert (found.reason, found.container) == ("StartupProbeFailed", "api")


@pytest.mark.parametrize(
    "ended",
    [again(137, 60), again(1, 120), again(137, 120, "OOMKilled")],
    ids=["early", "gave up by itself", "memory"],
)
def test_another_end_is_not_the_startup_probes(ended: dict[str, Any]) -> None:
    diagnosis = Diagnosis(IMAGE)
    assert diagnosis.look([deployment()], [], 0.0).hopeless is None
    assert diagnosis.look([deployment()], [pod(ended)], 1.0).hopeless is None


def test_a_container_that_had_started_did_not_miss_its_start() -> None:
    diagnosis = Diagnosis(IMAGE)
    assert diagnosis.look([deployment()], [pod({**RUNNING})], 0.0).hopeless is None
    assert diagnosis.look([deployment()], [pod(again(137, 180))], 1.0).hopeless is None


def test_a_pod_without_room_gets_a_moment() -> None:
    homeless = pod({}, scheduled="False")
    assert verdict(homeless, seconds=Limits.unschedulable - 1) is None
    found = verdict(homeless, seconds=Limits.unschedulable)
    assert found is not None
    assert (found.reason, found.message) == ("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")


def test_a_volume_that_is_being_made_gets_longer() -> None:
    waits = pod({}, scheduled="False")
    message = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    waits["status"]["conditions"][0]["message"] = message
    assert verdict(waits, seconds=Limits.unbound - 1) is None
    found = verdict(waits, seconds=Limits.unbound)
    assert found is not None
    assert (found.reason, found.message) == ("Unschedulable", message)


def test_a_container_that_started_and_is_never_ready() -> None:
    unready = pod({**RUNNING, "ready": False})
    assert verdict(unready, seconds=Limits.unready - 1) is None
    found = verdict(unready, seconds=Limits.unready)
    assert found is not None
    assert found.reason == "NotReady"
    assert "GET /healthz/ready says no" in found.message


def test_a_pod_that_was_ready_may_say_no_for_a_while() -> None:
    diagnosis = Diagnosis(IMAGE)
    assert diagnosis.look([deployment()], [pod(RUNNING)], 0.0).hopeless is None
    for now in (1.0, 100.0):
        assert diagnosis.look([deployment()], [pod({**RUNNING, "ready": False})], now).hopeless is None


def before_all(status: dict[str, Any]) -> dict[str, Any]:
    """Return a pod with one container in a state that runs before its own one, or beside it, and holds it up."""
    given = pod(status)
    given["status"]["initContainerStatuses"] = [
        {**each, "name": "asset-bridge"} for each in given["status"]["containerStatuses"]
    ]
    given["status"]["containerStatuses"] = []
    return given


@pytest.mark.parametrize(
    "status",
    [
        waiting("CreateContainerConfigError", 'secret "db" not found'),
        waiting("ImagePullBackOff", "not found"),
        waiting("CrashLoopBackOff", restartCount=1, lastState={"terminated": CRASHED}),
    ],
    ids=["no secret", "no image", "crash loop"],
)
def test_a_container_that_runs_before_the_others_fails_like_any_and_is_named(status: dict[str, Any]) -> None:
    alone = verdict(pod(status))
    assert alone is not None
    assert verdict(before_all(status)) == replace(alone, container="asset-bridge")
    seen = [Diagnosis(IMAGE).look([deployment()], [each], 0.0).pods for each in (pod(status), before_all(status))]
    assert seen[0] == seen[1]


def test_restarts_of_a_container_that_runs_before_the_others_count_only_from_here_on() -> None:
    diagnosis = Diagnosis(IMAGE)
    found = [
        diagnosis.look([deployment()], [before_all({**RUNNING, "restartCount": count})], float(count)).hopeless
        for count in (7, 8, 9)
    ]
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2].container == "asset-bridge"


def test_pods_of_other_releases_never_count() -> None:
    crashing = waiting("CrashLoopBackOff", restartCount=5)
    leaving = pod(crashing, name="api-4")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T18:00:00Z"
    others = [pod(crashing, image=OLD_IMAGE, name="api-2"), pod(crashing, revision="old", name="api-3"), leaving]
    assert verdict(*others, seconds=1000.0) is None
    assert Diagnosis(IMAGE).look([deployment()], [*others, pod(RUNNING)], 0.0).pods == (
        PodLine("api-1", "n2", "ready", ready=True),
    )


def test_nothing_counts_before_the_deployment_wants_the_release() -> None:
    assert verdict(pod(waiting("CrashLoopBackOff")), deployed=deployment(OLD_IMAGE, "old")) is None


def after_start(
    there: list[dict[str, Any]], *pods: dict[str, Any], deployed: dict[str, Any] | None = None
) -> Hopeless | None:
    """Return the verdict, a long time after the start, on a run that found these pods and a Deployment."""
    deployment_there = deployed or deployment()
    diagnosis = Diagnosis(IMAGE, found=Found.of([deployment_there], there))
    seen = [diagnosis.look([deployment_there], list(pods), now).hopeless for now in (0.0, 1000.0)]
    return next((each for each in seen if each), None)


BAD = [
    waiting("CrashLoopBackOff", restartCount=5, lastState={"terminated": CRASHED}),
    waiting("ImagePullBackOff", "not found"),
    waiting("CreateContainerConfigError", 'secret "db" not found'),
    {**RUNNING, "ready": False},
]


@pytest.mark.parametrize("status", BAD, ids=["crash loop", "no image", "no secret", "never ready"])
def test_what_was_bad_before_the_run_is_no_sign_of_it(status: dict[str, Any]) -> None:
    """The image is that of an earlier try, which failed by its configuration and was not put back."""
    assert after_start([pod(status)], pod(status)) is None
    again = {**status, "restartCount": status.get("restartCount", 0) + Limits.restarts}
    assert after_start([pod(status)], pod(again)) is None
    homeless = pod({}, scheduled="False")
    assert after_start([homeless], homeless) is None


@pytest.mark.parametrize("status", BAD, ids=["crash loop", "no image", "no secret", "never ready"])
def test_the_same_bad_release_once_more_is_not_waited_for_either(status: dict[str, Any]) -> None:
    bad = pod(status)
    diagnosis = Diagnosis(IMAGE, found=Found.of([deployment()], [bad], 30.0))
    assert diagnosis.look([deployment()], [bad], 0.0).hopeless is None
    assert diagnosis.look([deployment()], [bad], 29.0).hopeless is None
    reasons = [diagnosis.look([deployment()], [bad], 30.0 + seconds).hopeless for seconds in range(0, 100, 10)]
    assert reasons[-1] is not None
    replaced = deployment(revision="another")
    later = Diagnosis(IMAGE, found=Found.of([deployment()], [bad], 30.0))
    assert [later.look([replaced], [bad], seconds).hopeless for seconds in (0.0, 100.0)] == [None, None]


@pytest.mark.parametrize("status", BAD, ids=["crash loop", "no image", "no secret", "never ready"])
def test_a_pod_that_came_after_the_start_counts_at_the_first_look(status: dict[str, Any]) -> None:
    found = after_start([pod(status)], pod(status), pod(status, name="api-2"))
    assert found is not None
    assert found.pod == "api-2"


def test_a_pod_that_was_ready_before_the_run_counts_by_its_restarts_only() -> None:
    good = pod(RUNNING)
    diagnosis = Diagnosis(IMAGE, found=Found.of([deployment()], [good]))
    assert diagnosis.look([deployment()], [good], 0.0).hopeless is None
    once = pod(waiting("CrashLoopBackOff", restartCount=1, lastState={"terminated": CRASHED}))
    assert diagnosis.look([deployment()], [once], 1.0).hopeless is None
    twice = pod(waiting("CrashLoopBackOff", restartCount=2, lastState={"terminated": CRASHED}))
    found = diagnosis.look([deployment()], [twice], 2.0).hopeless
    assert found is not None
    assert (found.reason, found.previous) == ("CrashLoopBackOff", True)


def test_what_a_deployment_said_before_the_run_counts_once_its_template_is_another() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    for condition in (late, refused):
        there = deployment(conditions=[condition])
        assert after_start([], deployed=there) is None
        diagnosis = Diagnosis(IMAGE, found=Found.of([there], []))
        mended = deployment(revision="newer", conditions=[condition])
        seen = [diagnosis.look([mended], [], now).hopeless for now in (0.0, 1000.0)]
        assert seen[1] is not None


def test_pods_that_may_not_be_created() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    assert verdict(deployed=deployment(conditions=[refused]), seconds=Limits.refused - 1) is None
    found = verdict(deployed=deployment(conditions=[refused]), seconds=Limits.refused)
    assert found == Hopeless("FailedCreate", "exceeded quota", uid="deployment")


def test_a_deadline_counts_only_for_the_release_that_is_made() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    assert verdict(deployed=deployment(conditions=[late])) is not None
    assert verdict(deployed=deployment(conditions=[late], observedGeneration=1)) is None


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (waiting("ContainerCreating"), "ContainerCreating"),
        ({"state": {"running": {}}, "started": False}, "starting"),
        ({**RUNNING, "ready": False}, "started, not ready"),
        (RUNNING, "ready"),
        ({"state": {"terminated": CRASHED}, "restartCount": 1}, "Error, restarted 1x"),
    ],
)
def test_states_as_people_follow_them(status: dict[str, Any], state: str) -> None:
    (line,) = Diagnosis(IMAGE).look([deployment()], [pod(status)], 0.0).pods
    assert line.state == state


def test_events_as_lines() -> None:
    events = [
        {"reason": "Pulled", "message": "Successfully pulled\n image"},
        {"reason": "BackOff", "message": "Back-off restarting", "count": 3},
        {"reason": "Unhealthy", "message": "Startup probe failed", "series": {"count": 2}},
    ]
    assert event_lines(events) == [
        "Pulled: Successfully pulled image",
        "BackOff (x3): Back-off restarting",
        "Unhealthy (x2): Startup probe failed",
    ]


def test_ready_pods_of_several_slots() -> None:
    assert ready_text([deployment(readyReplicas=2), deployment()]) == "2/4"
    assert ready_text([]) == "0/0"
