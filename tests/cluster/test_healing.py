"""What heals by itself, under load, and how long it may take; and what was changed by hand is found and repaired.

The limits are those of the defaults with room for a loaded machine; `make bench-healing` measures.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster import machine
from devcluster.instance import Machine
from tests.cluster.embedded import Cluster
from tests.cluster.healing import CONTAINERD, KUBELET, App, Healing, incarnation
from tests.cluster.load import Load, Request, Results, back_end_requests
from tests.cluster.program import Program
from tests.cluster.releasing import Release

PROJECT = "SJZY.Package.Output.Api"
NAME = "sjzy-package-output-api"
RATE = 20
"""Requests a second; those that a hanging pod has are all in flight at once."""
HEAD_START_SECONDS = 2.0
LIMIT_SECONDS = 90.0
AWAY_SECONDS = 60.0
DRAIN_SECONDS = 120.0
pytestmark = pytest.mark.soak
"""Minutes of load; `make soak` runs them."""
HAND_MADE: list[tuple[str, tuple[str, ...], str]] = [
    ("image", ("set", "image", f"deployment/{NAME}", f"{NAME}=nowhere.test/x:1"), "spec.template.spec.containers"),
    ("replicas", ("scale", f"deployment/{NAME}", "--replicas=3"), "spec.replicas is 3, not 2"),
    (
        "selector",
        ("patch", "service", NAME, '--patch={"spec":{"selector":{"app.kubernetes.io/name":"other"}}}'),
        "spec.selector.app.kubernetes.io/name is other",
    ),
    (
        "label",
        ("label", "deployment", NAME, "app.kubernetes.io/part-of=other", "--overwrite"),
        "metadata.labels.app.kubernetes.io/part-of is other",
    ),
    (
        "annotation",
        ("annotate", "service", NAME, "package-platform/gitea-project=other", "--overwrite"),
        "metadata.annotations.package-platform/gitea-project is other",
    ),
    ("deleted", ("delete", "poddisruptionbudget", NAME), f"PodDisruptionBudget {NAME} is missing"),
]


@pytest.fixture
def healing(program: Program, cluster: Cluster) -> Iterator[Healing]:
    """The cluster at rest; it is so again after the test."""
    program.wait_until_settled()
    yield Healing(cluster)
    for node in cluster.instance.nodes:
        if not machine.is_on(node):
            cluster.devcluster("node-up", node.name)
        cluster.kubectl("uncordon", node.name, check=False)
    cluster.devcluster("up")
    program.wait_until_settled()


@pytest.fixture
def app(program: Program) -> App:
    """The back end that does as it is told."""
    return App(NAME, program.namespace, 2)


@pytest.fixture
def load(program: Program, cluster: Cluster, tmp_path: Path) -> Load:
    """Requests to it, long ones and such as nobody repeats among them: for events that may lose none at all."""
    return Load(cluster, tmp_path / "load", back_end_requests(*program.url(PROJECT)), RATE)


@pytest.fixture
def repeatable(program: Program, cluster: Cluster, tmp_path: Path) -> Load:
    """Requests to it that the proxy may send to another pod: for events after which a POST in flight must be lost."""
    return Load(cluster, tmp_path / "load", [Request(*program.url(PROJECT))], RATE)


def a_worker_of(healing: Healing, app: App) -> Machine:
    """Return a node without the control plane that has a pod of the app."""
    names = [pod["spec"]["nodeName"] for pod in healing.pods(app)]
    return next(node for node in healing.cluster.instance.nodes if not node.is_control_plane and node.name in names)


def assert_over(results: Results, most: int) -> None:
    """Check that not more was lost, and that the loss is over."""
    assert len(results.failed) <= most, results.summary()
    assert {hit.code for hit in results.hits[-20:]} == {200}, results.summary()


def test_a_crash_and_a_hang(healing: Healing, app: App, repeatable: Load) -> None:
    """A POST that such a pod has begun ends with it, so only what may be repeated is sent."""
    events: list[Callable[[], object]] = [
        lambda: healing.steer(healing.pods(app)[0], "exit"),
        lambda: healing.steer(healing.pods(app)[0], "hang"),
    ]
    with repeatable:
        time.sleep(HEAD_START_SECONDS)
        for number, event in enumerate(events):
            lost = {incarnation(healing.pods(app)[0])}
            event()
            assert healing.healed(app, lost, LIMIT_SECONDS) is not None, f"event {number} does not heal"
        time.sleep(HEAD_START_SECONDS)
    # What the crashed pod had in flight is sent to another; what hangs is, when the pod is ended.
    assert_over(repeatable.results(), RATE // 2)


def test_a_deleted_pod_loses_nothing(healing: Healing, app: App, load: Load) -> None:
    with load:
        time.sleep(HEAD_START_SECONDS)
        pod = healing.pods(app)[0]
        healing.delete(pod)
        assert healing.healed(app, {incarnation(pod)}, LIMIT_SECONDS) is not None
        # It goes on answering what it has, and has ended only when that is over.
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        healing.cluster.kubectl(
            "wait", f"pod/{name}", f"--namespace={namespace}", "--for=delete", f"--timeout={LIMIT_SECONDS:.0f}s"
        )
        time.sleep(HEAD_START_SECONDS)
    assert_over(load.results(), 0)


def test_a_full_volume(healing: Healing, app: App, repeatable: Load) -> None:
    """The pod is evicted and replaced, and the node does not fill up.

    The kubelet gives it one second to end, not the grace that it asks for, so a POST in flight may be lost.
    """
    with repeatable:
        time.sleep(HEAD_START_SECONDS)
        pod = healing.pods(app)[0]
        healing.steer(pod, "fill")
        assert healing.healed(app, {incarnation(pod)}, LIMIT_SECONDS * 2) is not None
    assert_over(repeatable.results(), RATE)


@pytest.mark.parametrize("agent", [KUBELET, CONTAINERD], ids=["kubelet", "containerd"])
def test_a_killed_agent_of_a_node_disturbs_no_pod(healing: Healing, app: App, load: Load, agent: str) -> None:
    node = a_worker_of(healing, app)
    before = {incarnation(pod) for pod in healing.pods(app)}
    with load:
        time.sleep(HEAD_START_SECONDS)
        healing.kill(node, agent)
        # Longer than it takes until a silent node is noticed and its pods have left.
        time.sleep(25)
    assert {incarnation(pod) for pod in healing.ready(app)} == before
    assert_over(load.results(), 0)


def test_a_power_cut_of_a_node_and_its_return(healing: Healing, app: App, repeatable: Load) -> None:
    """What the pods of the node have begun is lost with them, so only what may be repeated is sent."""
    node = a_worker_of(healing, app)
    lost = {incarnation(pod) for pod in healing.pods(app) if pod["spec"]["nodeName"] == node.name}
    with repeatable:
        time.sleep(HEAD_START_SECONDS)
        healing.cluster.devcluster("node-down", node.name)
        # 10 s until it is noticed, 10 s until the pods leave; with Kubernetes' own 300 s it would not be over.
        assert healing.healed(app, lost, LIMIT_SECONDS) is not None
        healing.cluster.devcluster("node-up", node.name)
        assert healing.until(lambda: node.name in healing.well_nodes(), LIMIT_SECONDS) is not None
        time.sleep(HEAD_START_SECONDS)
    # What was in flight at the node, and up to a second of it when the node held the ingress' address.
    assert_over(repeatable.results(), RATE * 2)


def test_the_control_plane_is_away_for_a_minute_and_traffic_goes_on(healing: Healing, app: App, load: Load) -> None:
    before = {incarnation(pod) for pod in healing.pods(app)}
    with load:
        time.sleep(HEAD_START_SECONDS)
        healing.without_control_plane(healing.cluster.instance.nodes[0], AWAY_SECONDS)
        # As long as it would take to evict pods of nodes that were silent for its own absence.
        time.sleep(30)
    assert_over(load.results(), 0)
    assert healing.until(lambda: len(healing.well_nodes()) == len(healing.cluster.instance.nodes), LIMIT_SECONDS)
    assert {incarnation(pod) for pod in healing.ready(app)} == before, "nobody was evicted"


def test_a_drain_of_a_node_ends_and_loses_nothing(healing: Healing, app: App, load: Load) -> None:
    """Of a singleton too, whose budget must let it go."""
    node = a_worker_of(healing, app)
    with load:
        time.sleep(HEAD_START_SECONDS)
        healing.drain(node, DRAIN_SECONDS)
        assert healing.healed(app, set(), LIMIT_SECONDS) is not None
    assert node.name not in {pod["spec"]["nodeName"] for pod in healing.pods(app)}
    assert_over(load.results(), 0)


def test_what_was_changed_by_hand_is_found_and_repaired(program: Program, cluster: Cluster) -> None:
    release = Release(program)

    def drift() -> list[str]:
        (said,) = release("status", PROJECT).said["projects"]
        return said["drift"]

    assert drift() == []
    for _, words, _ in HAND_MADE:
        cluster.kubectl(*words, f"--namespace={program.namespace}")
    found = drift()
    for name, _, line in HAND_MADE:
        assert any(line in each for each in found), (name, found)
    # Not needed by the provider 4.x: see docs/how-to/self-healing.md.
    program.variables["PULUMI_K8S_ENABLE_DRY_RUN"] = "true"
    try:
        program.up("--refresh")
    finally:
        del program.variables["PULUMI_K8S_ENABLE_DRY_RUN"]
    assert drift() == []
    program.wait_until_settled()
    assert program.answer(PROJECT).status_code == 200
