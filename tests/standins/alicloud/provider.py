"""A stand-in of Alibaba Cloud: a Pulumi provider that answers as pulumi-alicloud 4.0 does, and makes nothing.

Real are Pulumi's engine, its protocol, the SDK and its types: an input that the SDK does not know, that is missing or
of another type is refused. The stand-in gives ids, remembers resources in a folder, refuses to delete what is
protected in the cloud, and answers the credential of a cluster with the kubeconfig that it is given. It knows nothing
of quotas, zones that are sold out, permissions, or how long anything takes.

Environment:
    ALICLOUD_STANDIN_FOLDER: where it remembers.
    ALICLOUD_STANDIN_KUBECONFIG: the kubeconfig of the cluster that stands for the managed one.
"""

import json
import os
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import yaml
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import (
    CheckFailure,
    CheckRequest,
    CheckResponse,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DiffRequest,
    DiffResponse,
    InvokeRequest,
    InvokeResponse,
    PropertyDiff,
    PropertyDiffKind,
    Provider,
    ReadRequest,
    ReadResponse,
    UpdateRequest,
    UpdateResponse,
)
from pulumi.provider.experimental.server import main
from pulumi.runtime.rpc import UNKNOWN as UNKNOWN_ON_THE_WIRE

from tests.standins.alicloud import sdk

VERSION = "4.0.0"
FOLDER_VARIABLE = "ALICLOUD_STANDIN_FOLDER"
KUBECONFIG_VARIABLE = "ALICLOUD_STANDIN_KUBECONFIG"
CREDENTIAL = "alicloud:cs/getClusterCredential:getClusterCredential"
CLUSTER = "alicloud:cs/managedKubernetes:ManagedKubernetes"
MINUTES = range(15, 4321)
"""What the SDK documents for ``temporary_duration_minutes``."""
PREFIXES = {
    "vpc/network:Network": "vpc-",
    "vpc/switch:Switch": "vsw-",
    "vpc/natGateway:NatGateway": "ngw-",
    "ecs/eipAddress:EipAddress": "eip-",
    "ecs/securityGroup:SecurityGroup": "sg-",
    "alb/loadBalancer:LoadBalancer": "alb-",
    "kms/key:Key": "key-",
    "cs/managedKubernetes:ManagedKubernetes": "c",
}
"""How the ids of a type begin."""
FORCES_NEW = {
    "alicloud:vpc/network:Network": {"isDefault"},
    "alicloud:vpc/switch:Switch": {"vpcId", "zoneId", "cidrBlock"},
    "alicloud:vpc/natGateway:NatGateway": {"vpcId", "natType", "networkType", "vswitchId"},
    "alicloud:nas/fileSystem:FileSystem": {"protocolType", "fileSystemType", "encryptType", "zoneId"},
    "alicloud:log/project:Project": {"projectName"},
    CLUSTER: {"name", "serviceCidr", "podVswitchIds", "newNatGateway", "slbInternetEnabled"},
    "alicloud:cs/nodePool:NodePool": {"clusterId"},
    "alicloud:cs/kubernetesAddon:KubernetesAddon": {"clusterId", "name"},
}
"""Inputs whose change replaces the resource, as far as the SDK's documentation says so."""


def plain(value: Any) -> Any:
    """Return a property value as plain data, ``sdk.UNKNOWN`` for what is not known."""
    inner = value.value if isinstance(value, PropertyValue) else value
    if inner == UNKNOWN_ON_THE_WIRE:
        return sdk.UNKNOWN
    if isinstance(inner, Mapping):
        return {key: plain(each) for key, each in cast("Mapping[str, Any]", inner).items()}
    if isinstance(inner, list | tuple):
        return [plain(each) for each in cast("list[Any]", inner)]
    return inner


def wire(value: Any) -> PropertyValue:
    """Return plain data as a property value."""
    if isinstance(value, Mapping):
        return PropertyValue({key: wire(each) for key, each in cast("Mapping[str, Any]", value).items()})
    if isinstance(value, list):
        return PropertyValue([wire(each) for each in cast("list[Any]", value)])
    if isinstance(value, sdk.Unknown):
        # The SDK's own `computed()` can't be put on the wire (3.272).
        return PropertyValue(UNKNOWN_ON_THE_WIRE)
    return PropertyValue(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _kind(urn: str) -> str:
    """Return the type in a URN, without those of the components around it."""
    return urn.split("::")[2].rsplit("$", 1)[-1]


class StandIn(Provider):
    """The provider."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self._folder = folder
        self._kubeconfig = kubeconfig

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Refuse what the SDK's types do not allow."""
        found = sdk.problems(_kind(request.urn), plain(request.new_inputs))
        failures = [CheckFailure(name, f"{name}: {reason}") for name, reason in found]
        return CheckResponse(inputs=request.new_inputs, failures=failures)

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Compare the inputs with those that the resource was last given."""
        known = self._file(request.resource_id)
        old = json.loads(known.read_text())["inputs"] if known.exists() else plain(request.old_state)
        new = plain(request.new_inputs)
        keys = {*new, *(old if known.exists() else ())}
        changed = sorted(key for key in keys if old.get(key) != new.get(key))
        replaces = [key for key in changed if key in FORCES_NEW.get(_kind(request.urn), set())]
        kinds = {
            key: PropertyDiff(
                PropertyDiffKind.UPDATE_REPLACE if key in replaces else PropertyDiffKind.UPDATE, input_diff=True
            )
            for key in changed
        }
        return DiffResponse(changes=bool(changed), replaces=replaces, diffs=changed, detailed_diff=kinds)

    async def create(self, request: CreateRequest) -> CreateResponse:
        """Give an id, and what else the cloud would know."""
        if request.preview:
            told = dict.fromkeys(self._told(_kind(request.urn), {}, ""), sdk.UNKNOWN)
            return CreateResponse(None, {**request.properties, **{key: wire(each) for key, each in told.items()}})
        prefix = PREFIXES.get(_kind(request.urn).removeprefix("alicloud:"), "")
        resource_id = prefix + uuid.uuid4().hex
        return CreateResponse(resource_id, self._remember(_kind(request.urn), resource_id, request.properties))

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """Remember the new inputs."""
        if request.preview:
            return UpdateResponse({**request.olds, **request.news})
        return UpdateResponse(self._remember(_kind(request.urn), request.resource_id, request.news))

    async def read(self, request: ReadRequest) -> ReadResponse:
        """Tell what the cloud has; nothing for an id that it does not know."""
        file = self._file(request.resource_id)
        if not file.exists():
            return ReadResponse("", {}, {})
        known = json.loads(file.read_text())
        return ReadResponse(
            request.resource_id,
            {key: wire(each) for key, each in known["outputs"].items()},
            {key: wire(each) for key, each in known["inputs"].items()},
        )

    async def delete(self, request: DeleteRequest) -> None:
        """Forget a resource, unless the cloud protects it."""
        known = json.loads(self._file(request.resource_id).read_text())["inputs"]
        nested = known.get("deletionProtectionConfig", {}).get("enabled")
        if known.get("deletionProtection") in (True, "Enabled") or nested:
            raise RuntimeError(f"OperationDenied.DeletionProtection: {request.resource_id} is protected in the cloud")
        self._file(request.resource_id).unlink()

    async def invoke(self, request: InvokeRequest) -> InvokeResponse:
        """Answer the credential of a cluster that there is; a new one each time."""
        asked = plain(request.args)
        if request.tok != CREDENTIAL:
            raise NotImplementedError(f"the stand-in answers no {request.tok}")
        if not self._file(asked["clusterId"]).exists():
            raise LookupError(f"ErrorClusterNotFound: {asked['clusterId']}")
        minutes = int(asked.get("temporaryDurationMinutes", MINUTES[-1]))
        if minutes not in MINUTES:
            raise ValueError(f"temporaryDurationMinutes: {minutes} is not within {MINUTES[0]} and {MINUTES[-1]}")
        answer: dict[str, Any] = {
            "id": asked["clusterId"],
            "clusterId": asked["clusterId"],
            "clusterName": json.loads(self._file(asked["clusterId"]).read_text())["inputs"].get("name", ""),
            "kubeConfig": self._credential(),
            "certificateAuthorities": [],
            "expiration": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="seconds"),
            "temporaryDurationMinutes": minutes,
        }
        return InvokeResponse({key: wire(each) for key, each in answer.items()})

    def _credential(self) -> str:
        """Return the kubeconfig under a user's name of its own: no two answers of the cloud are the same."""
        content = yaml.safe_load(self._kubeconfig.read_text())
        name = f"user-{uuid.uuid4().hex[:8]}"
        content["users"][0]["name"] = content["contexts"][0]["context"]["user"] = name
        return yaml.safe_dump(content)

    def _remember(self, kind: str, resource_id: str, inputs: Mapping[str, PropertyValue]) -> dict[str, PropertyValue]:
        told = self._told(kind, plain(inputs), resource_id)
        remembered = {"type": kind, "inputs": plain(inputs), "outputs": {**plain(inputs), **told}}
        self._file(resource_id).write_text(json.dumps(remembered, indent=1))
        return {**inputs, **{key: wire(each) for key, each in told.items()}}

    def _told(self, kind: str, inputs: Mapping[str, Any], resource_id: str) -> dict[str, Any]:
        """Return what only the cloud knows of a resource."""
        server = yaml.safe_load(self._kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        name = resource_id[-12:]
        known: dict[str, dict[str, Any]] = {
            "vpc/natGateway:NatGateway": {"snatTableIds": f"stb-{name}"},
            "ecs/eipAddress:EipAddress": {"ipAddress": "203.0.113.10"},
            "alb/loadBalancer:LoadBalancer": {"dnsName": f"alb-{name}.alb.example.com"},
            "nas/mountTarget:MountTarget": {"mountTargetDomain": f"{name}.nas.example.com"},
            "cs/nodePool:NodePool": {"nodePoolId": f"np{name}", "scalingGroupId": f"asg-{name}"},
            "cs/managedKubernetes:ManagedKubernetes": {
                "connections": [{"apiServerIntranet": server, "apiServerInternet": "", "serviceDomain": ""}],
                "vpcId": self._vpc(inputs),
                "certificateAuthorities": [],
                "workerRamRoleName": f"KubernetesWorkerRole-{name}",
            },
        }
        return known.get(kind.removeprefix("alicloud:"), {})

    def _vpc(self, inputs: Mapping[str, Any]) -> str:
        switches = inputs.get("vswitchIds") or [""]
        file = self._file(str(switches[0]))
        return json.loads(file.read_text())["inputs"]["vpcId"] if file.is_file() else ""

    def _file(self, resource_id: str) -> Path:
        return self._folder / f"{resource_id}.json"


if __name__ == "__main__":
    own = Path(os.environ[FOLDER_VARIABLE])
    own.mkdir(parents=True, exist_ok=True)
    main(sys.argv[1:], VERSION, StandIn(own, Path(os.environ[KUBECONFIG_VARIABLE])))
