"""``python -m pipeline access``: what each job may do in an environment's namespace, as Kubernetes objects.

Role-based access control can't tell one object from another when it is made, nor know names that end in a hash. So two
things hold a job to its own project: its Role names the objects with fixed names, and one ValidatingAdmissionPolicy
(https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/, stable since Kubernetes 1.30)
refuses whatever of the accounts writes that does not carry the project's label, before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from model.fields import DnsLabel, plain_mapping
from model.names import JOB_ACCOUNT_PREFIX, SLOTS, all_names, kubernetes_name, slot_name
from pipeline.arguments import HERE, Cwd, SettingsFile, Stack
from pipeline.errors import EXIT_CODES, RefusedError
from pipeline.settings import Program

HELP = f"""Print a ServiceAccount, Role and RoleBinding for every project's job in a stack's namespace.

\b
With them a job can change its own project's objects and no others. Nothing is asked and nothing is changed; an
administrator of the cluster applies what is printed:
  python -m pipeline access -s uat | kubectl apply -f -

\b
{EXIT_CODES}
"""
POLICY = "package-platform-own-objects"
_LABELS = {"app.kubernetes.io/managed-by": "package-platform", "app.kubernetes.io/component": "release-access"}
_READ = ["get", "list", "watch"]
_CHANGE = ["update", "patch", "delete"]
_NAMED: Mapping[str, tuple[str, ...]] = {
    "": ("services", "serviceaccounts"),
    "apps": ("deployments", "statefulsets"),
    "networking.k8s.io": ("ingresses",),
    "policy": ("poddisruptionbudgets",),
    "autoscaling": ("horizontalpodautoscalers",),
}
"""API group → what has names that are known beforehand."""
_UNNAMED: Mapping[str, tuple[str, ...]] = {"": ("configmaps", "persistentvolumeclaims", "secrets"), "batch": ("jobs",)}
"""API group → what has names that are not known beforehand: with a hash, or a volume's.

Of Secrets too all are seen: the provider watches what it deletes (``Deletion`` in ``provider/pkg/await`` of
pulumi-kubernetes). The stack's own state, that every job of the stack decrypts, has them as well.
"""
_SEEN: Mapping[str, tuple[str, ...]] = {
    "": ("pods", "pods/log", "events", "endpoints"),
    "apps": ("replicasets",),
    "discovery.k8s.io": ("endpointslices",),
}
"""API group → what a release only looks at."""

Manifest = dict[str, Any]
_NAMESPACE: TypeAdapter[str] = TypeAdapter(DnsLabel)


def access(stack: Stack, *, cwd: Cwd = HERE, settings_file: SettingsFile = None) -> None:
    """Print the objects."""
    program = Program(cwd, settings_file)
    environment = plain_mapping(program.stack(stack).get("environment")) or {}
    try:
        namespace = _NAMESPACE.validate_python(environment.get("namespace"))
    except ValidationError:
        field = f"Pulumi.{stack}.yaml:package-platform:environment.namespace"
        raise RefusedError(f"{field}: is required, a DNS label: letters, digits and '-'") from None
    typer.echo(
        yaml.safe_dump_all(objects(namespace, program.projects()), sort_keys=False, allow_unicode=True), nl=False
    )


def objects(namespace: str, gitea_names: Iterable[str]) -> list[Manifest]:
    """Return every object, in the order to apply them. Pure.

    Args:
        namespace: Of the stack's projects.
        gitea_names: The projects.
    """
    return [
        policy(namespace),
        binding(namespace),
        *(each for name in gitea_names for each in of_project(namespace, kubernetes_name(name))),
    ]


def of_project(namespace: str, name: str) -> list[Manifest]:
    """Return one project's account, its rights and the binding of the two. Pure.

    Args:
        namespace: Of the stack's projects.
        name: The project's name in Kubernetes.
    """
    account = {"kind": "ServiceAccount", "name": f"{JOB_ACCOUNT_PREFIX}{name}", "namespace": namespace}
    metadata = {"name": f"{JOB_ACCOUNT_PREFIX}{name}", "namespace": namespace, "labels": {**_LABELS}}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            # Used from outside, by a token that is asked for; no pod runs as it.
            "automountServiceAccountToken": False,
        },
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules(name)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{JOB_ACCOUNT_PREFIX}{name}"},
            "subjects": [account],
        },
    ]


def rules(name: str) -> list[Manifest]:
    """Return what a project's job may do. Pure."""
    names = list(all_names(name))
    named = [_rule(group, kinds, [*_READ, "create"]) for group, kinds in _NAMED.items()]
    own = [{**_rule(group, kinds, _CHANGE), "resourceNames": names} for group, kinds in _NAMED.items()]
    unnamed = [_rule(group, kinds, [*_READ, "create", *_CHANGE]) for group, kinds in _UNNAMED.items()]
    # Smoke checks go through the API server, to the Service of the slot that has no traffic yet, at its port `http`.
    smoke = {**_rule("", ("services/proxy",), ["get"]), "resourceNames": [f"{each}:http" for each in names]}
    return [*named, *own, *unnamed, smoke, *(_rule(group, kinds, _READ) for group, kinds in _SEEN.items())]


def policy(namespace: str) -> Manifest:
    """Return the rule that an account writes only objects that are its own project's, and act for no other. Pure.

    Without it an account could have the API server write another account's token into a Secret, run pods as another
    account, or have its pods answer for another project. Whose host an Ingress takes can't be told from a label.
    """
    prefix = f"system:serviceaccount:{namespace}:{JOB_ACCOUNT_PREFIX}"
    label = "app.kubernetes.io/name"

    def carries(thing: str) -> str:
        return (
            f"({thing} == null || (has({thing}.metadata.labels) && '{label}' in {thing}.metadata.labels && "
            f"request.userInfo.username == '{prefix}' + {thing}.metadata.labels['{label}']))"
        )

    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{POLICY}-{namespace}", "labels": {**_LABELS}},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["*"],
                        "apiVersions": ["*"],
                        "operations": ["CREATE", "UPDATE", "DELETE"],
                        "resources": ["*"],
                        "scope": "*",
                    }
                ]
            },
            "matchConditions": [
                {
                    "name": "by-a-job",
                    "expression": f"request.userInfo.username.startsWith('{prefix}')",
                },
                # An account may ask what it may do, and who it is.
                {
                    "name": "an-object",
                    "expression": "!(request.resource.group in ['authorization.k8s.io', 'authentication.k8s.io'])",
                },
            ],
            "validations": [
                {"expression": expression, "message": message, "reason": "Forbidden"}
                for expression, message in (
                    (
                        f"{carries('object')} && {carries('oldObject')}",
                        f"a job writes only objects whose label {label} is its own project's",
                    ),
                    (
                        _of(("secrets",), "!has(object.type) || object.type == 'Opaque'"),
                        "a job writes Secrets of type Opaque only",
                    ),
                    (
                        _of(
                            ("deployments", "statefulsets", "jobs"),
                            f"has(object.spec.template.spec.serviceAccountName) && "
                            f"object.spec.template.spec.serviceAccountName == {_own_name(label)} && "
                            f"{_names_own('object.spec.template.metadata.labels', label)}",
                        ),
                        "a job's pods run as its own project's account, and carry its name",
                    ),
                    (
                        _of(
                            ("deployments", "statefulsets", "jobs"),
                            "!has(object.spec.template.spec.volumes) || object.spec.template.spec.volumes.all(volume, "
                            "!has(volume.persistentVolumeClaim) || "
                            f"volume.persistentVolumeClaim.claimName.startsWith({_own_name(label)} + '-'))",
                        ),
                        "a job's pods have the volumes of their own project",
                    ),
                    (
                        _of(
                            ("horizontalpodautoscalers",),
                            f"object.spec.scaleTargetRef.name in [{_slots_of(_own_name(label))}]",
                        ),
                        "a job's autoscaler scales its own project's pods",
                    ),
                    (
                        _of(
                            ("poddisruptionbudgets",),
                            "has(object.spec.selector.matchLabels) && "
                            f"{_names_own('object.spec.selector.matchLabels', label)}",
                        ),
                        "a job's disruption budget is of its own project's pods",
                    ),
                    (
                        _of(
                            ("services",),
                            "object.spec.type == 'ClusterIP' && !has(object.spec.externalIPs) && "
                            f"has(object.spec.selector) && {_names_own('object.spec.selector', label)}",
                        ),
                        "a job's Service is of type ClusterIP and selects its own project's pods",
                    ),
                )
            ],
        },
    }


def _of(resources: tuple[str, ...], condition: str) -> str:
    """Return what holds for objects of some kinds, and for all others."""
    kinds = ", ".join(f"'{each}'" for each in resources)
    return f"object == null || !(request.resource.resource in [{kinds}]) || ({condition})"


def _slots_of(name: str) -> str:
    """Return the names of a project's Deployments, given an expression for its own."""
    return ", ".join(f"{name} + '{slot_name('', slot)}'" for slot in SLOTS)


def _own_name(label: str) -> str:
    return f"object.metadata.labels['{label}']"


def _names_own(labels: str, label: str) -> str:
    return f"'{label}' in {labels} && {labels}['{label}'] == {_own_name(label)}"


def binding(namespace: str) -> Manifest:
    """Return what puts the rule into force. Pure."""
    name = f"{POLICY}-{namespace}"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name, "labels": {**_LABELS}},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }


def _rule(group: str, kinds: tuple[str, ...], verbs: list[str]) -> Manifest:
    return {"apiGroups": [group], "resources": list(kinds), "verbs": list(verbs)}
