"""A project's volumes: their claims, and where the pods have them. Pure."""

from collections.abc import Iterable

from manifests import Manifest
from manifests.labels import SKIP_AWAIT, annotations, labels, object_annotations
from model.environment import Environment
from model.fields import quantity_value
from model.names import GITEA_PROJECT
from model.plan import Plan
from model.stack import Application
from model.storage import (
    GROUP,
    RECLAIM_ANNOTATION,
    SHARED,
    VOLUME_ANNOTATION,
    Claim,
    Volume,
    claim_name,
)

_NFS_PROVISIONER = "nfs.csi.k8s.io"
_REVISIONS_KEPT = 3


def claims(application: Application, environment: Environment) -> tuple[Manifest, ...]:
    """Return the claims that all pods of a project share."""
    return tuple(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name(application.name, each.name),
                "namespace": environment.namespace,
                "labels": labels(application, environment.name),
                "annotations": {
                    **object_annotations(application),
                    VOLUME_ANNOTATION: each.name,
                    RECLAIM_ANNOTATION: each.reclaim,
                    # A class that binds with the first pod would have Pulumi wait for a pod that waits for the claim.
                    **SKIP_AWAIT,
                },
            },
            "spec": _spec(each, environment),
        }
        for each in application.project.storage
        if not each.per_pod
    )


def kept_claims(there: Iterable[Claim], environment: Environment) -> tuple[Manifest, ...]:
    """Return claims that stay although nothing asks for them, in the words that are enough to go on declaring them."""
    return tuple(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": each.name,
                "namespace": environment.namespace,
                "annotations": {
                    GITEA_PROJECT: each.project,
                    VOLUME_ANNOTATION: each.volume,
                    RECLAIM_ANNOTATION: each.reclaim,
                    **SKIP_AWAIT,
                },
            },
            "spec": {
                "accessModes": [each.access_mode],
                "storageClassName": each.storage_class,
                "resources": {"requests": {"storage": each.size}},
            },
        }
        for each in there
    )


def left_by(application: Application, target: Plan) -> tuple[Claim, ...]:
    """Return the claims of a project that its file no longer asks for, and that stay: their data is to, or for now.

    Kubernetes ends no claim that a pod mounts, and Pulumi would wait for it in vain: as long as a slot is kept as it
    is, so are they.
    """
    wanted = {each.name for each in application.project.storage}
    used = any(slot.change == "keep" for slot in target.slots)
    return tuple(
        each
        for each in application.claims
        if each.volume not in wanted and (each.reclaim == "retain" or used) and not each.per_pod
    )


def growing(application: Application) -> frozenset[str]:
    """Return the names of the claims that there are and that are to grow."""
    there = {each.volume: each for each in application.claims}
    return frozenset(
        there[each.name].name
        for each in application.project.storage
        if each.name in there and quantity_value(each.size) > quantity_value(there[each.name].size)
    )


def classes(application: Application, environment: Environment) -> tuple[str, ...]:
    """Return the StorageClasses of a project that the cluster is asked for: those that this program does not make."""
    storage = environment.storage
    if not storage.check_classes:
        return ()
    own = {storage.resolve(SHARED)} if storage.nfs else set[str]()
    return tuple(sorted({storage.resolve(each.storage_class) for each in application.project.storage} - own))


def templates(application: Application, environment: Environment) -> list[Manifest]:
    """Return the templates of the claims that each pod has of its own; they can never change."""
    return [
        {
            "metadata": {
                "name": each.name,
                "annotations": {**annotations(application), VOLUME_ANNOTATION: each.name},
            },
            "spec": _spec(each, environment),
        }
        # In another order they would be others to Pulumi, and the StatefulSet made anew.
        for each in sorted(application.project.storage, key=lambda volume: volume.name)
        if each.per_pod
    ]


def as_stateful_set(application: Application, environment: Environment, deployment: Manifest) -> Manifest:
    """Return a Deployment's manifest as the StatefulSet of a project whose pods have volumes of their own.

    Its pods are replaced one at a time, the old one gone before its successor starts. They are managed in parallel: in
    order, one that does not become ready would hold up also the way back
    (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback).
    """
    spec = deployment["spec"]
    deleted = any(each.per_pod and each.reclaim == "delete" for each in application.project.storage)
    return {
        **deployment,
        "kind": "StatefulSet",
        "spec": {
            "replicas": spec["replicas"],
            "revisionHistoryLimit": _REVISIONS_KEPT,
            "minReadySeconds": spec["minReadySeconds"],
            "serviceName": application.name,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": "Delete" if deleted else "Retain",
                "whenScaled": "Retain",
            },
            "selector": spec["selector"],
            "template": spec["template"],
            "volumeClaimTemplates": templates(application, environment),
        },
    }


def put_into(application: Application, pod: Manifest, *, shared_only: bool = False) -> None:
    """Give a rendered pod's own container its volumes.

    Args:
        application: The project.
        pod: Its pod.
        shared_only: Leave out what a pod beside the running ones would wait for.
    """
    volumes = [each for each in application.project.storage if not shared_only or each.mode == "ReadWriteMany"]
    if not volumes:
        return
    (own,) = pod["containers"]
    own["volumeMounts"] += [{"name": each.name, "mountPath": each.mount} for each in volumes]
    pod["volumes"] += [
        {"name": each.name, "persistentVolumeClaim": {"claimName": claim_name(application.name, each.name)}}
        for each in volumes
        if not each.per_pod
    ]
    group = application.project.run_as_user or GROUP
    # Only where the volume's root has another group: to change every file of a large one would take the start's time.
    pod["securityContext"] |= {"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"}


def shared_class(environment: Environment) -> Manifest | None:
    """Return the StorageClass of the environment's NFS server, None where it names none."""
    nfs = environment.storage.nfs
    if nfs is None:
        return None
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": environment.storage.resolve(SHARED),
            "labels": {"app.kubernetes.io/managed-by": "pulumi"},
        },
        "provisioner": _NFS_PROVISIONER,
        "parameters": {
            "server": nfs.server,
            "share": nfs.share,
            # A folder that people find, rather than the volume's random name.
            "subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}",
        },
        "mountOptions": list(nfs.mount_options),
        "allowVolumeExpansion": True,
        "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Delete",
    }


def _spec(volume: Volume, environment: Environment) -> Manifest:
    return {
        "accessModes": [volume.mode],
        "storageClassName": environment.storage.resolve(volume.storage_class),
        "resources": {"requests": {"storage": volume.size}},
    }
