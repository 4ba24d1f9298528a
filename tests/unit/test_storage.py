"""Volumes: what is refused, what may change, and what pods get."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest

from manifests import storage
from manifests.workload import Workload
from model.fields import quantity_value, usual_bytes
from model.plan import CanaryWish
from model.problems import SettingsError
from model.release import RECORD_ANNOTATION, Record, Release, Slot
from model.stack import Application, Stack, needs_claims, with_claims, with_records, without_a_second
from model.storage import RECLAIM_ANNOTATION, Claim, claims_of
from tests.conftest import rendered
from tests.unit.test_bad_input import BACKEND, check, problems

FILE = "projects/Some.Api.yaml"
DATA: dict[str, Any] = {"name": "data", "size": "10Gi", "mount": "/data"}
SHARED: dict[str, Any] = {**DATA, "class": "shared"}
OWN: dict[str, Any] = {**DATA, "perPod": True}
ONE_POD: dict[str, Any] = {**BACKEND, "singleton": True, "replicas": 1}
WAITS = (
    "and pods on two nodes would wait for it for ever: set singleton: true (one pod, stopped before its successor "
    "starts), class: shared, or perPod: true"
)


def stack_of(*volumes: dict[str, Any], storage: dict[str, Any] | None = None, **fields: Any) -> Stack:
    """Return a stack with one project, a singleton unless its volumes need none."""
    single = any(each.get("class") != "shared" and not each.get("perPod") for each in volumes)
    project = {**(ONE_POD if single else BACKEND), "storage": list(volumes), **fields}
    environment = {
        "namespace": "package-uat",
        "domain": "uat.example.com",
        "registry": {"host": "harbor.example.com"},
        "storage": storage or {},
    }
    return check({"Some.Api": project}, tags={"Some.Api": "1"}, environment=environment)


def only(stack: Stack) -> Application:
    (application,) = stack.applications
    return application


def workload(stack: Stack) -> Workload:
    return rendered(only(stack), stack.environment)


def state_of(stack: Stack) -> dict[str, Any]:
    """Return the resources that the engine would tell of, once the stack is deployed."""
    made = workload(stack)
    resources: dict[str, Any] = {
        f"urn:pulumi:uat::package-platform::package-platform:index:PackageApp$package-platform:index:Storage"
        f"$kubernetes:core/v1:PersistentVolumeClaim::Some.Api-{index}": {
            "type": "kubernetes:core/v1:PersistentVolumeClaim",
            "outputs": each,
        }
        for index, each in enumerate(made.claims)
    }
    for slot in made.slots:
        kind = slot.deployment["kind"]
        resources[f"urn:pulumi:uat::package-platform::x::{kind}"] = {
            "type": f"kubernetes:apps/v1:{kind}",
            "outputs": slot.deployment,
        }
    return resources


def refused(before: Stack, after: Stack) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        with_claims(after, claims_of(state_of(before)))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("volume", "line"),
    [
        ({**DATA, "name": "Data"}, "storage.0.name: 'Data' is no DNS label"),
        ({**DATA, "name": "d" * 31}, f"storage.0.name: '{'d' * 31}' is longer than 30 characters: shorten it"),
        ({**DATA, "name": "tmp"}, "storage.0.name: 'tmp' is the pod's own: choose another name"),
        ({**DATA, "size": "10GB"}, "storage.0.size: '10GB' is no Kubernetes quantity"),
        ({**DATA, "size": "100m"}, "storage.0.size: '100m' is no size: whole bytes, such as 500Mi or 10Gi"),
        ({**DATA, "size": 0}, "storage.0.size: '0' is no size: whole bytes, such as 500Mi or 10Gi"),
        ({"name": "data", "mount": "/data"}, "storage.0.size: is required"),
        ({**DATA, "mount": "data"}, "storage.0.mount: 'data' is no path in a container"),
        ({**DATA, "mount": "/"}, "storage.0.mount: '/' is no path in a container"),
        ({**DATA, "mount": "/tmp/x"}, "storage.0: mount /tmp/x is in /tmp, which is the pod's own"),
        ({**DATA, "class": "Fast"}, "storage.0.class: 'Fast' is no StorageClass: fast, shared, or a class of the"),
        ({**DATA, "accessMode": "ReadOnlyMany"}, "storage.0.accessMode: input should be 'ReadWriteOnce', "),
        ({**DATA, "reclaim": "keep"}, "storage.0.reclaim: input should be 'retain' or 'delete' (got 'keep')"),
        ({**DATA, "klass": "fast"}, "storage.0.klass: unknown key; did you mean 'class'?"),
        ({**OWN, "accessMode": "ReadWriteMany"}, "storage.0: a volume of one pod can't be ReadWriteMany"),
    ],
)
def test_a_wrong_volume_is_one_line(volume: dict[str, Any], line: str) -> None:
    (found,) = problems({"Some.Api": {**ONE_POD, "storage": [volume]}})
    assert found.startswith(f"{FILE}:{line}")


@pytest.mark.parametrize(
    ("fields", "volumes", "reason"),
    [
        ({}, [DATA], f"data is ReadWriteOnce, {WAITS}"),
        ({"replicas": 1}, [DATA], f"data is ReadWriteOnce, {WAITS}"),
        ({"strategy": "blueGreen", "replicas": 1}, [DATA], f"data is ReadWriteOnce, {WAITS}"),
        ({"strategy": "canary"}, [DATA], f"data is ReadWriteOnce, {WAITS}"),
        ({}, [{**SHARED, "accessMode": "ReadWriteOnce"}], f"data is ReadWriteOnce, {WAITS}"),
        (
            {},
            [{**DATA, "class": "own", "accessMode": "ReadWriteOncePod"}],
            f"data is ReadWriteOncePod, {WAITS}",
        ),
        (
            {"strategy": "blueGreen"},
            [OWN],
            "data is perPod, and a second group of pods would have other data: use strategy: rolling",
        ),
        (
            {"autoscaling": {"maxReplicas": 4}},
            [OWN],
            "data is perPod, and a pod that the autoscaler removes leaves its data behind: remove one of both",
        ),
        (
            {},
            [OWN, {**OWN, "name": "more", "mount": "/more", "reclaim": "delete"}],
            "the volumes of each pod have one reclaim, retain or delete: make them the same",
        ),
        (
            {},
            [SHARED, {**SHARED, "mount": "/more"}],
            "two volumes are called data: rename one",
        ),
        (
            {},
            [SHARED, {**SHARED, "name": "more", "mount": "/data/more"}],
            "the mount /data/more of more and /data are inside each other: change one",
        ),
        (
            {"config": {"mount": "/data/config", "files": ["a.json"]}},
            [SHARED],
            "the mount /data of data and /data/config are inside each other: change one",
        ),
    ],
)
def test_what_could_hang_or_hide_is_refused(fields: dict[str, Any], volumes: list[Any], reason: str) -> None:
    assert problems({"Some.Api": {**BACKEND, **fields, "storage": volumes}}) == [f"{FILE}: storage: {reason}"]


@pytest.mark.parametrize(
    ("fields", "volume"),
    [
        ({"singleton": True, "replicas": 1}, DATA),
        ({}, SHARED),
        ({"strategy": "blueGreen"}, SHARED),
        ({"strategy": "canary"}, SHARED),
        ({"autoscaling": {"maxReplicas": 4}}, SHARED),
        ({}, OWN),
        ({"singleton": True, "replicas": 1}, OWN),
        ({}, {**SHARED, "perPod": True}),
    ],
)
def test_what_can_not_hang_is_allowed(fields: dict[str, Any], volume: dict[str, Any]) -> None:
    check({"Some.Api": {**BACKEND, **fields, "storage": [volume]}})


def test_a_class_is_asked_only_for_what_it_can() -> None:
    shared: dict[str, Any] = {**ONE_POD, "storage": [{**DATA, "accessMode": "ReadWriteMany"}]}
    disk = {**shared, "routes": [], "storage": [{**shared["storage"][0], "class": "alicloud-disk-essd"}]}
    assert problems({"Some.Api": shared, "Other.Api": disk}) == [
        (
            "projects/Other.Api.yaml:storage.0.accessMode: ReadWriteMany is not what class alicloud-disk-essd can: "
            "ReadWriteOnce or ReadWriteOncePod, or another class"
        ),
        (
            f"{FILE}:storage.0.accessMode: ReadWriteMany is not what class local-path can: ReadWriteOnce, "
            "or another class"
        ),
    ]


def test_two_projects_never_share_a_claim() -> None:
    files = {
        "some": {**BACKEND, "routes": [], "storage": [{**SHARED, "name": "api-data"}]},
        "some-api": {**BACKEND, "routes": [], "storage": [SHARED]},
    }
    assert problems(files) == [
        (
            "projects/some.yaml:storage.0.name: some-api-data is what a volume of projects/some-api.yaml is called "
            "too: rename one"
        )
    ]


def test_claims_of_single_pods_are_told_apart_by_the_names_that_kubernetes_gives_them() -> None:
    files = {
        "api": {**BACKEND, "routes": [], "storage": [{**OWN, "name": "data-package"}]},
        "package-api": {**BACKEND, "routes": [], "storage": [OWN]},
    }
    assert problems(files) == [
        (
            "projects/package-api.yaml:storage.0.name: data-package-api-0 is what a volume of projects/api.yaml is "
            "called too: rename one"
        )
    ]
    apart = {
        "a": {**BACKEND, "routes": [], "storage": [{**OWN, "name": "b-c"}]},
        "a-b": {**BACKEND, "routes": [], "storage": [{**OWN, "name": "c"}]},
    }
    assert len(check(apart).applications) == 2


def test_fast_and_shared_are_what_the_environment_has() -> None:
    volumes = (DATA, {**SHARED, "name": "files", "mount": "/files"}, {**DATA, "name": "x", "mount": "/x", "class": "y"})

    def names(settings: dict[str, Any]) -> list[str]:
        return [each["spec"]["storageClassName"] for each in workload(stack_of(*volumes, storage=settings)).claims]

    assert names({}) == ["local-path", "nfs", "y"]
    assert names({"kind": "ack"}) == ["alicloud-disk-topology-alltype", "alibabacloud-cnfs-nas", "y"]
    assert names({"kind": "ack", "fast": "alicloud-disk-essd", "shared": "nas"}) == ["alicloud-disk-essd", "nas", "y"]
    (line,) = problems(
        {},
        environment={
            "namespace": "n",
            "domain": "example.com",
            "registry": {"host": "harbor.example.com"},
            "storage": {"fast": "shared"},
        },
    )
    assert line.endswith("environment.storage: fast is shared, which is no StorageClass: name one of the cluster")


# What there is, and what it may become.


def test_what_the_state_has_is_read_back() -> None:
    assert claims_of(state_of(stack_of({**DATA, "reclaim": "delete"}))) == (
        Claim(
            project="Some.Api",
            volume="data",
            name="some-api-data",
            size="10Gi",
            access_mode="ReadWriteOnce",
            storage_class="local-path",
            reclaim="delete",
            component="package-platform:index:PackageApp",
        ),
    )
    (own,) = claims_of(state_of(stack_of(OWN)))
    assert (own.per_pod, own.volume, own.name, own.size) == (True, "data", "data", "10Gi")
    foreign = {"type": "kubernetes:core/v1:PersistentVolumeClaim", "outputs": {"metadata": {"name": "x"}}}
    assert claims_of({"urn": foreign, "other": 1, "third": {"type": "kubernetes:apps/v1:StatefulSet"}}) == ()


KEEP = "for other data, add a volume of another name"
GROWING: dict[str, Any] = {**DATA, "size": "20Gi"}


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (DATA, {**DATA, "size": "5Gi"}, f"size: can't shrink from 10Gi to 5Gi: keep 10Gi; {KEEP}"),
        (DATA, GROWING, "size: can't grow from 10Gi to 20Gi, as volumes of class local-path can't: keep 10Gi"),
        (
            {**DATA, "class": "own"},
            {**GROWING, "class": "own"},
            (
                "size: is to grow from 10Gi to 20Gi, and nothing says that class own can: set "
                "package-platform:environment.storage.classes.own.expandable: true if it does"
            ),
        ),
        (
            DATA,
            {**DATA, "class": "own"},
            f"class: can't change from local-path to own, data does not move by itself: {KEEP}",
        ),
        (
            {**DATA, "class": "own"},
            {**DATA, "class": "own", "accessMode": "ReadWriteMany"},
            f"accessMode: can't change from ReadWriteOnce to ReadWriteMany while there is data: {KEEP}",
        ),
        (DATA, OWN, f"perPod: can't change, as the data is not the same: {KEEP}"),
        (OWN, DATA, f"perPod: can't change, as the data is not the same: {KEEP}"),
        (
            OWN,
            {**OWN, "size": "20Gi"},
            (
                "size: can't grow from 10Gi to 20Gi while its pods run, as their claims' template is fixed: see "
                "docs/how-to/storage.md"
            ),
        ),
        (OWN, {**OWN, "size": "5Gi"}, f"size: can't shrink from 10Gi to 5Gi: keep 10Gi; {KEEP}"),
    ],
)
def test_what_a_volume_could_not_follow_is_refused(before: dict[str, Any], after: dict[str, Any], line: str) -> None:
    assert refused(stack_of(before), stack_of(after)) == [f"{FILE}:storage.0.{line}"]


def test_all_changes_that_are_refused_come_at_once() -> None:
    after = stack_of({**SHARED, "size": "5Gi"})
    assert [line.split(": ")[0] for line in refused(stack_of(DATA), after)] == [
        f"{FILE}:storage.0.accessMode",
        f"{FILE}:storage.0.class",
        f"{FILE}:storage.0.size",
    ]


def test_the_volumes_of_a_stateful_set_can_not_become_others() -> None:
    more = {**OWN, "name": "more", "mount": "/more"}
    expected = "the volumes of each pod are data and can't become data, more while its pods run"
    assert refused(stack_of(OWN), stack_of(OWN, more)) == [
        f"{FILE}:storage: {expected}: see docs/how-to/storage.md",
    ]
    # None left is no StatefulSet any more, and its pods' claims stay by themselves.
    with_claims(stack_of(SHARED | {"name": "files"}), claims_of(state_of(stack_of(OWN))))


def singleton(*volumes: dict[str, Any], live: str = "main", slots: Sequence[str] = ("main",)) -> Stack:
    """Return a stack with a singleton that has run."""
    stack = stack_of(*volumes, singleton=True, replicas=1)
    release = Release(tag="0")
    record = {"live": live, "slots": {name: Slot(release=release, revision="r0") for name in slots}}
    return with_records(stack, {"some-api": Record.model_validate({**record, "history": (release,)})})


DOWN = "take it down first, with `package-platform:projects: {exclude: [Some.Api]}`"


@pytest.mark.parametrize(
    ("stack", "there", "line"),
    [
        (
            singleton(live="blue", slots=("blue", "green")),
            (),
            (
                "it runs as blue and green, beside which `main` would start: release another tag of it first, with "
                f"strategy: rolling and without singleton, or {DOWN}"
            ),
        ),
        (
            singleton(OWN),
            (),
            (f"it runs as a Deployment, beside which a StatefulSet (it has a volume with perPod) would start: {DOWN}"),
        ),
        (
            singleton({**DATA, "name": "other"}),
            claims_of(state_of(stack_of(OWN))),
            (f"it runs as a StatefulSet (it has a volume with perPod), beside which a Deployment would start: {DOWN}"),
        ),
    ],
)
def test_a_singleton_never_gets_an_object_that_would_start_beside_its_own(
    stack: Stack, there: Sequence[Claim], line: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        without_a_second(with_claims(stack, there))
    assert str(caught.value) == f"{FILE}:singleton: {line}"


def test_a_singletons_autoscaler_goes_first() -> None:
    """It is deleted after the release, and would start a second pod while the only one is replaced."""
    stack = singleton()
    applications = tuple(each.model_copy(update={"autoscaled": ("some-api",)}) for each in stack.applications)
    scaled = stack.model_copy(update={"applications": applications})
    with pytest.raises(SettingsError, match="its autoscaler goes only after the release, and would start a second pod"):
        without_a_second(scaled)


def test_a_singleton_that_stays_what_it_is_and_one_that_is_put_back_are_no_problem() -> None:
    for stack in (singleton(), with_claims(singleton(OWN), claims_of(state_of(stack_of(OWN)))), stack_of(DATA)):
        assert without_a_second(stack) == stack
    stack = singleton(live="blue", slots=("blue",))
    applications = tuple(each.model_copy(update={"action": "restore"}) for each in stack.applications)
    restored = stack.model_copy(update={"applications": applications})
    assert without_a_second(restored) == restored


@pytest.mark.parametrize(
    ("before", "after", "settings"),
    [
        (DATA, DATA, {}),
        (DATA, {**DATA, "size": "10240Mi"}, {}),
        # What the API server makes of a size that is no whole number of bytes, and of one with a decimal point.
        ({**DATA, "size": "0.7Gi"}, {**DATA, "size": "0.7Gi"}, {"stored": "751619276800m"}),
        ({**DATA, "size": "1.07T"}, {**DATA, "size": "1.07T"}, {"stored": "1070G"}),
        (DATA, {**DATA, "mount": "/elsewhere", "reclaim": "delete"}, {}),
        (DATA, {**DATA, "class": "local-path"}, {}),
        (DATA, GROWING, {"kind": "ack"}),
        (SHARED, {**SHARED, "size": "20Gi"}, {}),
        ({**DATA, "class": "own"}, {**GROWING, "class": "own"}, {"classes": {"own": {"expandable": True}}}),
        (DATA, GROWING, {"classes": {"local-path": {"expandable": True}}}),
    ],
)
def test_what_a_volume_can_follow_is_allowed(
    before: dict[str, Any], after: dict[str, Any], settings: dict[str, Any]
) -> None:
    stored = settings.get("stored")
    settings = {key: value for key, value in settings.items() if key != "stored"}
    there = claims_of(state_of(stack_of(before, storage=settings)))
    there = tuple(each.model_copy(update={"size": stored or each.size}) for each in there)
    stack = with_claims(stack_of(after, storage=settings), there)
    assert only(stack).claims == there
    grows = after["size"] == "20Gi"
    assert storage.growing(only(stack)) == (frozenset({"some-api-data"}) if grows else frozenset())


def test_data_outlives_its_line_in_the_file_and_the_file_itself() -> None:
    gone = {**DATA, "name": "gone", "mount": "/gone", "reclaim": "delete"}
    there = claims_of(state_of(stack_of(DATA, gone)))
    without = with_claims(stack_of(), there)
    assert [each["metadata"]["name"] for each in workload(without).kept_claims] == ["some-api-data"]
    assert without.left_claims == ()
    assert without.keeps_data
    nothing = check({}, tags={})
    assert [each.name for each in with_claims(nothing, there).left_claims] == ["some-api-data"]
    assert not check({"Some.Api": BACKEND}).keeps_data


def test_a_claim_that_is_to_go_stays_while_a_warm_colour_mounts_it() -> None:
    """Kubernetes would end it with the last pod that has it, and pulumi wait for that in vain."""
    gone = {**SHARED, "name": "gone", "mount": "/gone", "reclaim": "delete"}
    before = stack_of(gone, strategy="blueGreen")
    there = claims_of(state_of(before))
    live = Record.model_validate_json(workload(before).service["metadata"]["annotations"][RECORD_ANNOTATION])
    after = with_claims(with_records(stack_of(strategy="blueGreen"), {"some-api": live}), there)
    (kept,) = workload(after).kept_claims
    assert kept["metadata"]["name"] == "some-api-gone"
    assert kept["metadata"]["annotations"][RECLAIM_ANNOTATION] == "delete"
    assert [slot.plan.change for slot in workload(after).slots] == ["declare", "keep"]

    def recorded(made: Workload) -> Stack:
        record = Record.model_validate_json(made.service["metadata"]["annotations"][RECORD_ANNOTATION])
        return with_records(after, {"some-api": record})

    tidied = only(recorded(workload(after))).model_copy(update={"action": "tidy"})
    parked = rendered(tidied, after.environment)
    assert [slot.plan.change for slot in parked.slots if slot.plan.name == live.live] == ["park"]
    assert workload(recorded(parked)).kept_claims == ()


def test_neither_the_order_of_volumes_nor_how_a_size_is_written_is_a_change() -> None:
    """A StatefulSet's templates, and a claim's size, can't change: Pulumi would make both anew."""
    other = {**OWN, "name": "cache", "mount": "/cache"}
    (one,), (two,) = workload(stack_of(OWN, other)).slots, workload(stack_of(other, OWN)).slots
    assert one.deployment["spec"]["volumeClaimTemplates"] == two.deployment["spec"]["volumeClaimTemplates"]
    for size in ("10Gi", "10240Mi", "10.0Gi", "10737418240"):
        (claim,) = workload(stack_of({**DATA, "size": size})).claims
        assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi", size


@pytest.mark.parametrize(
    ("written", "usual"),
    [("1Gi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000M", "1G"), ("1.07T", "1070G"), ("1024k", "1024k"), ("1000Ki", "1024k"),
     ("1", "1"), ("0.7Gi", "0.7Gi"), ("500Mi", "500Mi"), ("12345", "12345")],
)  # fmt: skip
def test_a_quantity_of_bytes_has_one_text(written: str, usual: str) -> None:
    assert usual_bytes(written) == usual
    assert quantity_value(usual) == quantity_value(written)


def test_what_the_api_server_writes_of_small_parts_is_read() -> None:
    assert quantity_value("1325598706237440u") == Fraction("1325598706237440") / 10**6
    assert quantity_value("5n") == Fraction(5, 10**9)


@pytest.mark.parametrize(
    ("share", "good"),
    [("/", True), ("/export/a b", False), ("export", False), ("/a/../b", False), ("/export/小包", True)],
)
def test_the_folder_of_a_server(share: str, good: object) -> None:
    settings = {"nfs": {"server": "files.example.com", "share": share}}
    if good:
        stack = stack_of(SHARED, storage=settings)
        found = storage.shared_class(stack.environment)
        assert found is not None
        assert found["parameters"]["share"] == share
    else:
        with pytest.raises(SettingsError, match="is no folder that a server exports: absolute, such as"):
            stack_of(SHARED, storage=settings)


def test_the_class_that_the_stack_makes_can_grow_whatever_it_is_called() -> None:
    settings = {"shared": "team-nfs", "nfs": {"server": "files.example.com", "share": "/export"}}
    there = claims_of(state_of(stack_of(SHARED, storage=settings)))
    grown = with_claims(stack_of({**SHARED, "size": "20Gi"}, storage=settings), there)
    assert storage.growing(only(grown)) == {"some-api-data"}


def test_facts_are_of_classes_and_not_of_the_words_for_them() -> None:
    with pytest.raises(SettingsError, match=r"classes\.fast is no StorageClass: write classes\.local-path"):
        stack_of(DATA, storage={"classes": {"fast": {"expandable": True}}})


def test_pods_that_have_their_own_volume_keep_it_without_a_claim_of_ours() -> None:
    there = claims_of(state_of(stack_of(OWN)))
    assert with_claims(check({}, tags={}), there).left_claims == ()


def test_the_state_is_read_only_where_volumes_may_matter() -> None:
    def part(stack: Stack, record: Record | None) -> bool:
        one = stack.model_copy(update={"whole": False})
        return needs_claims(with_records(one, {"some-api": record} if record else {}))

    plain = stack_of()
    target = Record.model_validate_json(
        workload(plain).service["metadata"]["annotations"]["package-platform/release"], by_alias=True
    )
    assert target.storage is None
    assert not part(plain, target)
    assert part(plain, None)
    assert part(plain, target.model_copy(update={"storage": True}))
    assert part(stack_of(DATA), target)
    assert needs_claims(plain)


def test_the_record_notes_that_there_are_volumes() -> None:
    there = claims_of(state_of(stack_of(DATA)))
    for stack in (stack_of(DATA), with_claims(stack_of(), there)):
        annotation = workload(stack).service["metadata"]["annotations"]["package-platform/release"]
        assert Record.model_validate_json(annotation).storage is True


# What pods get.


def test_a_shared_volume_is_in_every_slot_and_a_group_may_write_it() -> None:
    stack = stack_of(SHARED, strategy="canary")
    canary = only(stack).model_copy(update={"canary": CanaryWish(tag="2", weight=10)})
    made = rendered(canary, stack.environment)
    assert [slot.plan.name for slot in made.slots] == ["main", "canary"]
    for slot in made.slots:
        pod = slot.deployment["spec"]["template"]["spec"]
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "some-api-data"}} in pod["volumes"]
        assert {"name": "data", "mountPath": "/data"} in pod["containers"][0]["volumeMounts"]
        assert pod["securityContext"]["fsGroup"] == 65532
    own_user = workload(stack_of(SHARED, runAsUser=1000)).slots[0].deployment["spec"]["template"]["spec"]
    assert own_user["securityContext"]["fsGroup"] == own_user["securityContext"]["runAsUser"] == 1000


def test_a_project_without_volumes_has_pods_as_before() -> None:
    pod = workload(stack_of()).slots[0].deployment["spec"]["template"]["spec"]
    assert "fsGroup" not in pod["securityContext"]
    assert [each["name"] for each in pod["volumes"]] == ["tmp"]


@pytest.mark.parametrize(("volume", "mounted"), [(DATA, False), (OWN, False), (SHARED, True)])
def test_a_migration_never_waits_for_a_volume_that_the_pods_hold(volume: dict[str, Any], mounted: object) -> None:
    job = workload(stack_of(volume, migrate=["migrate"])).migration
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    assert ("data" in {each["name"] for each in pod["volumes"]}) is mounted
    assert ("data" in {each["name"] for each in pod["containers"][0]["volumeMounts"]}) is mounted


def test_a_volume_for_each_pod_makes_a_stateful_set_that_can_be_put_back() -> None:
    (slot,) = workload(stack_of(OWN)).slots
    spec = slot.deployment["spec"]
    assert slot.deployment["kind"] == "StatefulSet"
    # In order, a pod that does not become ready would hold up the way back too.
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]] == ["data"]
    assert "strategy" not in spec
    assert "progressDeadlineSeconds" not in spec
    assert workload(stack_of(OWN)).claims == ()
    (slot,) = workload(stack_of({**OWN, "reclaim": "delete"})).slots
    assert slot.deployment["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


def test_only_classes_of_others_are_asked_for() -> None:
    def asked(settings: dict[str, Any]) -> tuple[str, ...]:
        stack = stack_of(SHARED, storage=settings)
        return storage.classes(only(stack), stack.environment)

    server = {"server": "10.0.0.9", "share": "/export"}
    assert asked({}) == ("nfs",)
    assert asked({"nfs": server}) == ()
    assert asked({"checkClasses": False}) == ()


def test_the_environments_own_nfs_server_becomes_the_class() -> None:
    stack = stack_of(SHARED, storage={"nfs": {"server": "10.0.0.9", "share": "/export"}, "shared": "files"})
    manifest = storage.shared_class(stack.environment)
    assert manifest is not None
    assert manifest["metadata"]["name"] == "files"
    assert manifest["provisioner"] == "nfs.csi.k8s.io"
    assert manifest["parameters"]["server"] == "10.0.0.9"
    assert storage.shared_class(stack_of().environment) is None
