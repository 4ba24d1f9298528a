"""The cloud resources of the stack ``prod`` as they would be asked for: stored, and right for the SDK's own types.

To accept a change: ``make golden``, then read the diff.
"""

from typing import Any, cast

import pytest
from pydantic.alias_generators import to_camel
from syrupy.assertion import SnapshotAssertion

from manifests.ack_cluster import CloudResource, Ref, ack_cluster
from tests.conftest import committed_stack
from tests.golden.test_golden import YamlFiles
from tests.standins.alicloud.sdk import UNKNOWN, args_class, problems

CLUSTER = committed_stack("prod").cluster
assert CLUSTER is not None
RESOURCES = ack_cluster(CLUSTER)


class CloudFiles(YamlFiles):
    """``__snapshots__/test_ack_cluster/prod.yaml``."""

    @classmethod
    def get_location(cls, *, test_location: Any, index: Any) -> str:
        return super().get_location(test_location=test_location, index=f"x/{index}").replace(
            "test_golden/x", "test_ack_cluster"
        )  # fmt: skip


def shown(value: Any) -> Any:
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return [shown(each) for each in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def token(resource: CloudResource) -> str:
    module, name = resource.kind.split(".")
    return f"alicloud:{module}/{name[0].lower()}{name[1:]}:{name}"


def on_the_wire(value: Any) -> Any:
    """Return inputs as the engine sees them: names in camel case, nothing known of other resources."""
    if isinstance(value, Ref):
        return UNKNOWN
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        plain = {"tags"}
        return {to_camel(key): each if key in plain else on_the_wire(each) for key, each in entries.items()}
    return [on_the_wire(each) for each in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def test_golden(snapshot: SnapshotAssertion) -> None:
    documents = [
        {
            "name": each.name,
            "kind": each.kind,
            "cost": each.cost,
            **({"protect": True} if each.protect else {}),
            **({"after": list(each.after)} if each.after else {}),
            **({"ignoreChanges": list(each.ignore)} if each.ignore else {}),
            "inputs": shown(each.inputs),
        }
        for each in RESOURCES
    ]
    assert documents == snapshot(extension_class=CloudFiles, name="prod")


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.name)
def test_inputs_are_right_for_the_sdk(resource: CloudResource) -> None:
    assert problems(token(resource), on_the_wire(resource.inputs)) == []


def test_the_sdks_types_refuse_what_is_wrong() -> None:
    """The check itself: an unknown name, a missing one, another type, at the top and deep inside."""
    pool = on_the_wire(next(each for each in RESOURCES if each.kind == "cs.NodePool").inputs)
    bad = {**pool, "vSwitchIds": [], "systemDiskSize": "120", "labels": [{"value": "x"}], "management": {"surge": True}}
    del bad["clusterId"]
    found = dict(problems("alicloud:cs/nodePool:NodePool", bad))
    assert found == {
        "clusterId": "is required",
        "vSwitchIds": "is no property of NodePoolArgs",
        "systemDiskSize": "must be int, not '120'",
        "labels[0].key": "is required",
        "management.surge": "must be int, not True",
    }
    with pytest.raises(LookupError, match="no resource"):
        args_class("alicloud:cs/nodePool:NodePoool")


def test_no_field_is_deprecated() -> None:
    """The SDK warns where an input is set that the provider no longer wants."""
    for resource in RESOURCES:
        model = args_class(token(resource))
        for name in resource.inputs:
            assert not is_deprecated(model, name), f"{resource.name}.{name}"
    assert is_deprecated(args_class("alicloud:cs/nodePool:NodePool"), "node_count")


def is_deprecated(model: type, name: str) -> bool:
    return hasattr(getattr(model, name).fget, "_pulumi_deprecated_callable")
