"""The one place where a rendered manifest becomes a Pulumi resource.

A manifest says by itself what it is, so one class does for all kinds: the dict that the golden files and the schema
check have seen is the very one that is applied. The classes of pulumi-kubernetes, one for each kind, would make the
same of it (``tests/program/test_apply.py``), but to import them takes a third of a small program's start, and to
give what comes back its types a part of every run.
"""

from typing import Any

import pulumi
from pulumi_kubernetes import _utilities  # pyright: ignore[reportPrivateUsage]

from manifests import Manifest

NOTES = ["metadata.labels", "metadata.annotations"]
"""To be ignored where an object is left as it is. Never ``metadata`` as a whole: provider 4.x sends what is live of an
ignored path, and the API server refuses a patch with ``managedFields`` (``handleSSAIgnoreFields`` in
``provider/pkg/await/await.go`` of pulumi-kubernetes)."""
_SECRET_TYPE = "kubernetes:core/v1:Secret"  # noqa: S105 - a type
_SECRET_FIELDS = ["data", "stringData"]


class KubernetesObject(pulumi.CustomResource):
    """An object of the cluster, as its manifest has it."""

    metadata: pulumi.Output[dict[str, Any]]
    """As it was applied, in the API's own form."""


def apply(name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> KubernetesObject:
    """Declare a manifest as what it says it is.

    The engine is told that a Secret's data is secret, going in and coming back.

    Args:
        name: The resource's name in Pulumi.
        manifest: The rendered object.
        opts: Parent, dependencies and the rest.
    """
    token, fields = type_token(manifest), {**manifest}
    # The version of the package is that of the provider, as its own classes have it.
    opts = pulumi.ResourceOptions.merge(_utilities.get_resource_opts_defaults(), opts)
    if token == _SECRET_TYPE:
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(additional_secret_outputs=_SECRET_FIELDS))
        fields |= {key: pulumi.Output.secret(fields[key]) for key in _SECRET_FIELDS if key in fields}
    return KubernetesObject(token, name, fields, opts)


def type_token(manifest: Manifest) -> str:
    """Return the type by which the provider knows an object.

    Group, version and kind; the group without a name is called ``core``. Source: the tokens in ``schema.json`` of
    pulumi-kubernetes, and ``CustomResource`` of its Python package for kinds that are not in it.
    """
    group, _, version = str(manifest["apiVersion"]).rpartition("/")
    return f"kubernetes:{group or 'core'}/{version}:{manifest['kind']}"
