"""Labels and annotations: one set for every object of a project.

https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
"""

from model.names import GITEA_PROJECT, SlotName, label_value
from model.release import SLOT_LABEL
from model.stack import Application

PART_OF = "package-system"
"""The small-parcel system (小包系统), which all the projects make up."""
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}
"""For objects that are ready when they exist, or whose pods were waited for already: Pulumi's own wait would add ten
seconds and more to each change of a Service or Ingress, and with an old provider wait for ever for the token of a
ServiceAccount, which Kubernetes has not made by itself since 1.24."""

PATCH_FORCE = {"pulumi.com/patchForce": "true"}
"""What is declared counts, whoever else has set the field: an autoscaler that owns ``spec.replicas`` once it has
scaled, or a person with ``kubectl scale`` or ``kubectl edit``. Provider 4.x (server-side apply) would otherwise stop
with a conflict of owners, in the middle of a release and of putting back; older ones overwrite by themselves.

https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/managing-resources-with-server-side-apply/
"""


def selector(application: Application, slot: SlotName) -> dict[str, str]:
    """Return the labels by which a slot's Deployment finds its pods; they can never change."""
    return {"app.kubernetes.io/name": application.name, SLOT_LABEL: slot}


def labels(application: Application, environment: str) -> dict[str, str]:
    """Return the labels of every object of a project, without the version, which changes with each release."""
    return {
        "app.kubernetes.io/name": application.name,
        "app.kubernetes.io/instance": label_value(f"{application.name}-{environment}"),
        "app.kubernetes.io/component": application.project.kind,
        "app.kubernetes.io/part-of": PART_OF,
        "app.kubernetes.io/managed-by": "pulumi",
    }


def version_label(application: Application) -> dict[str, str]:
    """Return the label that shows people the tag; empty while nothing is deployed."""
    return {"app.kubernetes.io/version": label_value(application.image.tag)} if application.image else {}


def annotations(application: Application) -> dict[str, str]:
    """Return the annotations of everything that belongs to a project, its pods too."""
    return {GITEA_PROJECT: application.gitea_name}


def object_annotations(application: Application) -> dict[str, str]:
    """Return the annotations of every object of a project that is declared."""
    return {**annotations(application), **PATCH_FORCE}
