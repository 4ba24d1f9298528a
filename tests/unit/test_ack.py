"""A cluster on ACK: what is refused before anything is made, its credentials, and who may do what."""

import json
from typing import Any, cast

import pytest

from components.cluster_access import RELEASE_MINUTES
from manifests.ack_cluster import CloudResource, Ref, ack_cluster
from manifests.kubeconfig import plugin_command, pointed_at, with_plugin
from manifests.ram_policy import making_policy, releasing_policy
from model.ack import POLICIES, AckSettings, policy_problems
from model.fields import merged
from model.problems import SettingsError
from settings import PROGRAM, build_stack, read_stack_file

CLUSTER_ID = "c" + "0" * 31 + "a"
ALL: dict[str, Any] = read_stack_file(PROGRAM, "prod")
GOOD: dict[str, Any] = ALL["cluster"]
ZONES: list[dict[str, str]] = GOOD["network"]["zones"]
SWITCHES: dict[str, Any] = {"environment": {"ingress": {"ha": {"vSwitches": ["vsw-1a", "vsw-1b"]}}}}
WITHOUT_BALANCER: dict[str, Any] = {"cluster": {"loadBalancer": None, "addOns": {"alb-ingress-controller": {}}}}
LABEL_VALUE = "value of a Kubernetes label: at most 63 letters, digits, '-', '_' and '.', the last three not at an end"
CONTROLLER = "add-on-alb-ingress-controller"
KUBECONFIG = json.dumps(
    {
        "clusters": [{"name": "k", "cluster": {"server": "https://203.0.113.9:6443", "certificate-authority": "x"}}],
        "users": [{"name": "u", "user": {"client-key-data": "private"}}],
        "contexts": [{"name": "x", "context": {"cluster": "k", "user": "u"}}],
        "current-context": "x",
    }
)  # fmt: skip


def settings(**changes: Any) -> AckSettings:
    return AckSettings.model_validate_json(json.dumps(merged(GOOD, changes)), by_alias=True, by_name=False)


def found(**changes: Any) -> list[str]:
    return [f"{each.field}: {each.message}" for each in policy_problems(settings(**changes))]


def with_zones(*changes: dict[str, str], **network: Any) -> dict[str, Any]:
    zones = [{**zone, **change} for zone, change in zip(ZONES, [*changes, {}, {}, {}], strict=False)]
    return {"network": {"zones": zones, **network}}


def told(data: dict[str, Any]) -> list[str]:
    """Return what the whole stack file is told."""
    try:
        build_stack(PROGRAM, "Pulumi.prod.yaml", "prod", data)
    except SettingsError as error:
        return [f"{each.field.removeprefix('package-platform:')}: {each.message}" for each in error.problems]
    return []


def test_the_committed_cluster_is_good() -> None:
    assert found() == []


def test_a_credential_that_releases_refuse_is_one_that_the_next_whole_run_renews() -> None:
    """Below twice that time a credential would be refused by ``release`` and not yet renewed by ``pulumi up``."""
    line = "cluster.credentialMinutes: input should be greater than or equal to 30 (got 29)"
    assert line in told(merged(ALL, {"cluster": {"credentialMinutes": 2 * RELEASE_MINUTES - 1}}))
    assert settings(credentialMinutes=2 * RELEASE_MINUTES).credential_minutes == 30


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"region": "cn-hangzou"}, "region: 'cn-hangzou' is no region with ACK Pro; did you mean 'cn-hangzhou'?"),
        (
            with_zones({"id": "cn-hangzhouh"}),
            "network.zones.0.id: 'cn-hangzhouh' is no zone of cn-hangzhou: cn-hangzhou- and a letter",
        ),
        (with_zones({"id": "cn-hangzhou-i"}), "network.zones.1.id: 'cn-hangzhou-i' is there twice"),
        (
            {"network": {"zones": ZONES[:2]}},
            "network.zones: 2 of 3 zones: name 3 or more, or write why under exceptions.zones",
        ),
        (
            with_zones(onPremise=["10.20.200.0/24"]),
            "network.onPremise.0: 10.20.200.0/24 overlaps 10.20.0.0/16 of network.cidr",
        ),
        (
            with_zones(services="10.20.240.0/20"),
            "network.services: 10.20.240.0/20 overlaps 10.20.0.0/16 of network.cidr",
        ),
        (
            with_zones(onPremise=["172.21.8.0/24"]),
            "network.onPremise.0: 172.21.8.0/24 overlaps 172.21.0.0/20 of network.services",
        ),
        (
            with_zones({}, {"nodes": "10.20.64.0/22"}),
            "network.zones.1.nodes: 10.20.64.0/22 overlaps 10.20.64.0/20 of network.zones.0.pods",
        ),
        (with_zones({"nodes": "10.21.0.0/22"}), "network.zones.0.nodes: 10.21.0.0/22 is not in the VPC's 10.20.0.0/16"),
        (
            with_zones({"nodes": "10.20.0.0/28"}),
            "network.zones.0.nodes: 10.20.0.0/28 has 12 addresses of use, too few for 7 nodes and 12 interfaces when a "
            "zone is lost: /27 or larger",
        ),
        (
            with_zones({"pods": "10.20.64.0/24"}),
            "network.zones.0.pods: 10.20.64.0/24 has 252 addresses of use, too few for 350 pods when a zone is lost: "
            "/23 or larger",
        ),
        (
            with_zones(services="172.21.0.0/25"),
            "network.services: 172.21.0.0/25 has 128 addresses and can't be changed later: at least 256",
        ),
        (
            with_zones(services="100.64.0.0/20"),
            "network.services: 100.64.0.0/20 is in 100.64.0.0/10, which Alibaba Cloud uses itself",
        ),
        (
            {"publicApi": True},
            "publicApi: would put the API server into the Internet: reach it through the VPC, or write why under "
            "exceptions.publicApi",
        ),
        (
            {"deletionProtection": False},
            "deletionProtection: one command could delete the cluster with its data: leave it true, or write why under "
            "exceptions.deletionProtection",
        ),
        (
            {"logs": None},
            "logs: without a log project nobody can tell who did what: name one, or write why under exceptions.logs",
        ),
        (
            {"nodePools": {"apps": {"minimum": 2}}},
            "nodePools.apps.minimum: 2 nodes can't be spread over 3 zones: 3 or more, or write why under "
            "exceptions.spread",
        ),
        ({"nodePools": {"apps": {"maximum": 2}}}, "nodePools.apps.maximum: 2 is less than its minimum, 3"),
        ({"keyPair": None}, "keyPair: is required without existing"),
        ({"exceptions": {"zones": " "}}, "exceptions.zones: say why, in words"),
        (
            {"existing": CLUSTER_ID},
            "network: has no place beside existing: that cluster is there already",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], line: str) -> None:
    assert line in found(**changes)


def test_a_region_that_ends_with_a_number_has_zones_without_a_dash() -> None:
    zones = [{"id": f"ap-southeast-1{letter}"} for letter in "abc"]
    assert found(region="ap-southeast-1", **with_zones(*zones)) == []


def test_the_smallest_that_is_advised_is_enough() -> None:
    changes = with_zones({"nodes": "10.20.0.0/27", "pods": "10.20.64.0/23"})
    assert found(**changes) == []


def test_all_is_told_at_once_and_with_the_file() -> None:
    bad = merged(ALL, {"cluster": {"publicApi": True, "region": "mars", "logs": None}, "tags": {"packt": "1"}})
    with pytest.raises(SettingsError) as caught:
        build_stack(PROGRAM, "Pulumi.prod.yaml", "prod", bad)
    fields = {problem.field for problem in caught.value.problems}
    assert {f"package-platform:cluster.{name}" for name in ("publicApi", "region", "logs")} < fields
    assert "package-platform:tags.packt" in fields


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_departed_from_in_writing_only(policy: str) -> None:
    departing: dict[str, dict[str, Any]] = {
        "zones": {"network": {"zones": ZONES[:2]}},
        "publicApi": {"publicApi": True},
        "deletionProtection": {"deletionProtection": False},
        "spread": {"nodePools": {"apps": {"minimum": 2}}},
        "logs": {"logs": None},
    }
    assert len(found(**departing[policy])) == 1
    assert found(**departing[policy], exceptions={policy: "a rehearsal"}) == []


def test_a_cluster_that_is_there_needs_only_its_id() -> None:
    given = {"kind": "ack", "name": "old", "region": "cn-hangzhou", "existing": CLUSTER_ID, "publicApi": True}
    existing = AckSettings.model_validate_json(json.dumps(given), by_alias=True, by_name=False)
    assert policy_problems(existing) == []
    with pytest.raises(ValueError, match="not declared here"):
        ack_cluster(existing)


def test_every_resource_comes_after_those_that_it_names() -> None:
    seen: set[str] = set()
    for resource in ack_cluster(settings()):
        needed = {*references(resource.inputs), *resource.after}
        assert needed <= seen, f"{resource.name} needs {needed - seen}"
        assert resource.name not in seen
        seen.add(resource.name)


def references(value: Any) -> set[str]:
    if isinstance(value, Ref):
        return {value.resource}
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(cast("dict[str, Any]", value).values())
    elif isinstance(value, list):
        inner = cast("list[Any]", value)
    return {name for each in inner for name in references(each)}


def test_what_holds_data_is_protected_unless_that_is_given_up_in_writing() -> None:
    protected = {each.kind for each in ack_cluster(settings()) if each.protect}
    assert {"vpc.Network", "cs.ManagedKubernetes", "nas.FileSystem", "kms.Key", "log.Project"} < protected
    assert not [each for each in ack_cluster(settings(deletionProtection=False)) if each.protect]


def test_parts_that_are_not_wanted_are_not_made() -> None:
    bare = settings(sharedFiles=None, loadBalancer=None, encryptSecrets=False)
    kinds = {each.kind.partition(".")[0] for each in ack_cluster(bare)}
    assert kinds == {"vpc", "ecs", "log", "cs"}
    assert CONTROLLER not in {each.name for each in ack_cluster(bare)}


def test_a_pool_that_does_not_scale_has_a_size_and_says_so() -> None:
    """What is left out stays as it was: a pool that scaled would go on."""
    (pool,) = (each for each in ack_cluster(settings(nodePools={"apps": {"maximum": 3}})) if each.kind == "cs.NodePool")
    assert pool.inputs["desired_size"] == "3"
    assert pool.inputs["scaling_config"] == {"enable": False}


def test_a_kubeconfig_is_pointed_at_the_endpoint() -> None:
    within = json.loads(pointed_at(KUBECONFIG, "https://10.20.0.9:6443"))
    assert within["clusters"][0]["cluster"]["server"] == "https://10.20.0.9:6443"
    assert json.loads(pointed_at(KUBECONFIG, "")) == json.loads(KUBECONFIG)


def test_a_kubeconfig_with_a_plugin_holds_no_credential_and_never_changes() -> None:
    command = plugin_command(CLUSTER_ID, "cn-hangzhou", 60)
    first = with_plugin(KUBECONFIG, "https://10.20.0.9:6443", command)
    assert "private" not in first
    assert with_plugin(
        KUBECONFIG.replace('"u"', '"v"').replace("private", "new"), "https://10.20.0.9:6443", command
    ) == (first)
    assert json.loads(first)["users"][0]["user"]["exec"]["command"] == "ack-ram-tool"


@pytest.mark.parametrize("text", ["", "[]", "clusters: [{}]", "a: {"])
def test_what_is_no_kubeconfig_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^what ACK answered is no kubeconfig\Z"):
        with_plugin(text, "https://10.0.0.1", ["x"])


def test_nobody_may_delete_what_is_protected() -> None:
    actions = {action for statement in making_policy(settings())["Statement"] for action in statement["Action"]}
    lost = ("DeleteVpc", "DeleteVSwitch", "DeleteCluster", "DeleteProject", "ScheduleKeyDeletion", "DeleteFileSystem",
            "DeleteLoadBalancer", "ReleaseEipAddress", "DeleteSecurityGroup", "DeleteMountTarget")  # fmt: skip
    assert not [action for action in actions if action.split(":")[1] in lost]
    assert not [action for action in actions if action.endswith("*")]


def test_who_releases_asks_for_a_credential_and_nothing_else() -> None:
    (statement,) = releasing_policy(settings(), CLUSTER_ID)["Statement"]
    assert statement["Resource"] == [f"acs:cs:cn-hangzhou:*:cluster/{CLUSTER_ID}"]
    assert statement["Action"] == ["cs:DescribeClusterDetail", "cs:DescribeClusterUserKubeconfig"]


def test_the_alb_is_the_clusters_own_or_has_networks_of_its_own() -> None:
    field = "environment.ingress.ha.vSwitches"
    assert told(ALL) == []
    assert told(merged(ALL, SWITCHES)) == [f"{field}: has no place beside cluster.loadBalancer, the ALB that is taken"]
    assert told(merged(ALL, WITHOUT_BALANCER)) == [f"{field}: is required: the stack makes no ALB beside its cluster"]
    assert told(merged(merged(ALL, WITHOUT_BALANCER), SWITCHES)) == []


def test_an_alb_that_is_not_the_clusters_own_needs_its_controller() -> None:
    without = merged(ALL, {"cluster": {"loadBalancer": None}})
    assert told(merged(without, SWITCHES)) == [
        "cluster.addOns: ingress.ha is of kind alb and loadBalancer is null: add `alb-ingress-controller: {}`"
    ]
    controller = settings(**WITHOUT_BALANCER["cluster"])
    assert CONTROLLER in {each.name for each in ack_cluster(controller)}


def test_what_an_add_on_does_not_say_stays_as_it_is_built_in() -> None:
    def controller(**add_on: Any) -> dict[str, Any]:
        given = settings(addOns={"alb-ingress-controller": add_on, "metrics-server": {"version": "v0.7"}})
        found = {each.name: dict(each.inputs) for each in ack_cluster(given)}
        assert found["add-on-metrics-server"]["version"] == "v0.7"
        return {key: found[CONTROLLER].get(key) for key in ("version", "config")}

    built_in = controller()
    assert json.loads(built_in["config"]) == {"albIngress": {"CreateDefaultALBConfig": False}}
    assert controller(version="v2.17.0") == {**built_in, "version": "v2.17.0"}
    assert controller(config="{}") == {"version": None, "config": "{}"}
    assert controller(config=None) == {"version": None, "config": None}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"network": {"zones": []}, "exceptions": {"zones": "a rehearsal"}},
            "network.zones: tuple should have at least 1 item after validation, not 0",
        ),
        (
            {"nodePools": {"apps": {"labels": {"team": "a b"}}}},
            f"nodePools.apps.labels.team: 'a b' is no {LABEL_VALUE}",
        ),
        (
            {"nodePools": {"apps": {"labels": {"team": "a" * 64}}}},
            f"nodePools.apps.labels.team: '{'a' * 64}' is no {LABEL_VALUE}",
        ),
        (
            {"nodePools": {"apps": {"taints": [{"key": "team", "value": "-"}]}}},
            f"nodePools.apps.taints.0.value: '-' is no {LABEL_VALUE}",
        ),
    ],
)
def test_what_is_of_no_form(changes: dict[str, Any], line: str) -> None:
    assert f"cluster.{line}" in told(merged(ALL, {"cluster": changes}))


@pytest.mark.parametrize("value", ["", "a", "A-b_c.9", "a" * 63])
def test_values_of_labels(value: str) -> None:
    pools = {"apps": {"labels": {"team": value}, "taints": [{"key": "team", "value": value}]}}
    assert told(merged(ALL, {"cluster": {"nodePools": pools}})) == []


def declared(**changes: Any) -> dict[str, CloudResource]:
    return {each.name: each for each in ack_cluster(settings(**changes))}


def test_the_security_group_lets_out_what_it_would_refuse_and_the_nodes_wait_for_that() -> None:
    """One of the enterprise type denies both ways what no rule allows."""
    made = declared()
    assert made["security-group"].inputs["security_group_type"] == "enterprise"
    rule = made["to-anywhere"].inputs
    assert (rule["type"], rule["cidr_ip"], rule["ip_protocol"]) == ("egress", "0.0.0.0/0", "all")
    rules = {name for name, each in made.items() if each.kind == "ecs.SecurityGroupRule"}
    assert rules == {"from-vpc", "from-on-premise-192-168-0-0-16", "to-anywhere"}
    assert rules <= set(made["control-plane"].after)


def test_a_network_elsewhere_keeps_its_rule_whatever_is_written_before_it() -> None:
    """A rule that is made again without effect and then deleted is a network that is cut off."""
    name = "from-on-premise-192-168-0-0-16"
    more = declared(**with_zones(onPremise=["10.99.0.0/16", "192.168.0.0/16"]))
    assert more[name] == declared()[name]
    assert more["from-on-premise-10-99-0-0-16"].inputs["cidr_ip"] == "10.99.0.0/16"


def test_a_new_version_is_first_the_control_planes_alone() -> None:
    """Without that word the cloud would upgrade all nodes at once with it."""
    assert declared()["control-plane"].inputs["upgrade_policy"] == {"control_plane_only": True}
    assert "upgrade_policy" not in declared(version=None)["control-plane"].inputs


def test_what_counts_at_creation_only_is_never_told_as_changed() -> None:
    assert {"pod_vswitch_ids", "slb_internet_enabled", "addons"} <= set(declared()["control-plane"].ignore)


READS = {
    "alb.LoadBalancer": "alb:GetLoadBalancerAttribute",
    "cs.KubernetesAddon": "cs:DescribeAddon cs:GetClusterAddonInstance",
    "cs.ManagedKubernetes": "cs:DescribeClusterDetail cs:CheckControlPlaneLogEnable cs:GetClusterAuditProject "
    "vpc:DescribeNatGateways",
    "cs.NodePool": "cs:DescribeClusterNodePoolDetail",
    "ecs.SecurityGroup": "ecs:DescribeSecurityGroupAttribute",
    "ecs.SecurityGroupRule": "ecs:DescribeSecurityGroupAttribute ecs:AuthorizeSecurityGroupEgress",
    "kms.Key": "kms:DescribeKey kms:ListTagResources",
    "log.Project": "log:GetProject log:GetProjectPolicy log:ListTagResources",
    "nas.FileSystem": "nas:DescribeFileSystems nas:GetRecycleBinAttribute nas:DescribeNfsAcl nas:ListTagResources",
}
"""Kind → what the cloud is asked at the end of each creation (the provider's source, 1.285); an answer that is refused
fails the run, with the resource made and paid for."""


@pytest.mark.parametrize("kind", READS)
def test_whoever_makes_a_resource_may_read_it(kind: str) -> None:
    statements = making_policy(settings())["Statement"]
    allowed = {action for each in statements for action in each["Action"]}
    assert set(READS[kind].split()) <= allowed


def test_nodes_that_are_added_on_demand_are_waited_for() -> None:
    short = merged(ALL, {"environment": {"unschedulableSeconds": 10}})
    with pytest.raises(SettingsError) as caught:
        build_stack(PROGRAM, "Pulumi.prod.yaml", "prod", short)
    assert [str(each) for each in caught.value.problems] == [
        "Pulumi.prod.yaml:package-platform:environment.unschedulableSeconds: 10 s end a release before a node is added "
        "for it, which a nodePool may: 240, for example"
    ]
    fixed = merged(short, {"cluster": {"nodePools": {"apps": {"maximum": 3}}}})
    assert build_stack(PROGRAM, "Pulumi.prod.yaml", "prod", fixed).environment.unschedulable_seconds == 10
