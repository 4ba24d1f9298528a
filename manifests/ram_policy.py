"""What the cloud's access management (RAM) has to allow whom: as little as the work needs.

Two policies, for two kinds of work. Who makes or changes a cluster may do so in one region, and may delete nothing that
holds data. Who releases projects may ask for a credential of the one cluster, and nothing else in the cloud; within the
cluster Kubernetes' own RBAC decides. Actions are those that the cloud's APIs document for what pulumi-alicloud calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.ack import AckSettings

_VPC = (
    "CreateVpc", "DescribeVpcAttribute", "DescribeVpcs", "ModifyVpcAttribute", "CreateVSwitch",
    "DescribeVSwitchAttributes", "DescribeVSwitches", "ModifyVSwitchAttribute", "DescribeRouteTableList",
    "CreateNatGateway", "DeleteNatGateway", "DescribeNatGateways", "GetNatGatewayAttribute",
    "ModifyNatGatewayAttribute", "AllocateEipAddress", "DescribeEipAddresses", "ModifyEipAddressAttribute",
    "AssociateEipAddress", "UnassociateEipAddress", "CreateSnatEntry", "DeleteSnatEntry", "DescribeSnatTableEntries",
    "ModifySnatEntry", "ListTagResources", "TagResources", "UnTagResources",
)  # fmt: skip
_ECS = (
    "CreateSecurityGroup", "DescribeSecurityGroups", "DescribeSecurityGroupAttribute",
    "ModifySecurityGroupAttribute", "AuthorizeSecurityGroup", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroup",
    "RevokeSecurityGroupEgress", "ModifySecurityGroupRule", "ModifySecurityGroupEgressRule", "DescribeKeyPairs",
    "ListTagResources", "TagResources", "UntagResources",
)  # fmt: skip
_CS_ANYWHERE = (
    "CreateCluster",
    "DescribeClustersV1",
    "DescribeKubernetesVersionMetadata",
    "DescribeAddons",
    "DescribeAddon",
)
_CS_CLUSTER = (
    "DescribeClusterDetail", "DescribeClusterResources", "DescribeClusterUserKubeconfig", "ModifyCluster",
    "ModifyClusterTags", "UpgradeCluster", "CheckControlPlaneLogEnable", "UpdateControlPlaneLog",
    "GetClusterAuditProject", "UpdateClusterAuditLogConfig", "UpdateKMSEncryption",
    "DescribeTaskInfo", "CreateClusterNodePool", "DescribeClusterNodePools", "DescribeClusterNodePoolDetail",
    "ModifyClusterNodePool", "ScaleClusterNodePool", "UpgradeClusterNodepool", "DeleteClusterNodepool",
    "DescribeClusterNodes", "InstallClusterAddons", "UpgradeClusterAddons", "ModifyClusterAddon",
    "UnInstallClusterAddons", "GetClusterAddonInstance", "ListClusterAddonInstances",
    "DescribeClusterAddonsVersion", "DescribeClusterAddonsUpgradeStatus", "CreateAutoscalingConfig",
)  # fmt: skip
_LOG = (
    "CreateProject", "GetProject", "UpdateProject", "GetProjectPolicy", "ListTagResources", "TagResources",
    "UntagResources",
)  # fmt: skip
_KMS = (
    "CreateKey", "DescribeKey", "UpdateKeyDescription", "SetDeletionProtection", "UpdateRotationPolicy",
    "ListTagResources", "TagResources", "UntagResources",
)  # fmt: skip
_NAS = (
    "CreateFileSystem", "DescribeFileSystems", "ModifyFileSystem", "GetRecycleBinAttribute", "DescribeNfsAcl",
    "CreateMountTarget", "DescribeMountTargets",
    "ModifyMountTarget", "CreateAccessGroup", "DescribeAccessGroups", "DeleteAccessGroup", "CreateAccessRule",
    "DescribeAccessRules", "ModifyAccessRule", "DeleteAccessRule", "ListTagResources", "TagResources",
    "UntagResources",
)  # fmt: skip
_ALB = (
    "CreateLoadBalancer", "GetLoadBalancerAttribute", "ListLoadBalancers", "UpdateLoadBalancerAttribute",
    "UpdateLoadBalancerZones", "UpdateLoadBalancerAddressTypeConfig", "EnableDeletionProtection", "ListAsynJobs",
    "ListTagResources", "TagResources", "UnTagResources",
)  # fmt: skip
_SERVICE_ROLES = (
    "alb.aliyuncs.com", "nat.aliyuncs.com", "audit.log.aliyuncs.com", "ess.aliyuncs.com", "nas.aliyuncs.com",
)  # fmt: skip


def making_policy(settings: AckSettings) -> dict[str, Any]:
    """Return the policy of who makes and changes the cluster.

    Of what is protected nothing can be deleted by it: to do so on purpose takes another policy, and another person.

    Args:
        settings: The cluster; a part that it does without is left out.
    """
    region = settings.region
    cluster = settings.existing or "*"
    statements = [
        _allow("vpc", _VPC, [f"acs:vpc:{region}:*:*"]),
        _allow("ecs", _ECS, [f"acs:ecs:{region}:*:*"]),
        _allow("cs", _CS_ANYWHERE, ["acs:cs:*:*:*"]),
        _allow("cs", _CS_CLUSTER, [f"acs:cs:{region}:*:cluster/{cluster}"]),
    ]
    if settings.logs:
        statements.append(_allow("log", _LOG, [f"acs:log:{region}:*:project/{settings.logs.project}"]))
    if settings.encrypt_secrets:
        statements.append(_allow("kms", _KMS, [f"acs:kms:{region}:*:*"]))
    if settings.shared_files:
        statements.append(_allow("nas", _NAS, [f"acs:nas:{region}:*:*"]))
    if settings.load_balancer:
        statements.append(_allow("alb", _ALB, [f"acs:alb:{region}:*:*"]))
    condition = {"StringEquals": {"ram:ServiceName": list(_SERVICE_ROLES)}}
    statements.append(_allow("ram", ["CreateServiceLinkedRole"], ["*"], condition))
    # Which role the cluster's own parts have is ACK's; they are made once for the account, in the console.
    statements.append(_allow("ram", ["PassRole"], ["acs:ram::*:role/aliyuncs*"]))
    return {"Version": "1", "Statement": statements}


def releasing_policy(settings: AckSettings, cluster_id: str = "*") -> dict[str, Any]:
    """Return the policy of who releases projects, a Jenkins job for example.

    Args:
        settings: The cluster.
        cluster_id: Of the cluster, once it is there; any of the region's until then.
    """
    resource = f"acs:cs:{settings.region}:*:cluster/{settings.existing or cluster_id}"
    actions = ("DescribeClusterDetail", "DescribeClusterUserKubeconfig")
    return {"Version": "1", "Statement": [_allow("cs", actions, [resource])]}


def _allow(
    service: str, actions: Sequence[str], resources: Sequence[str], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": sorted(f"{service}:{action}" for action in actions),
        "Resource": list(resources),
        **({"Condition": condition} if condition else {}),
    }
