"""What every cluster needs besides Kubernetes itself: DNS and volumes, as manifests."""

from dataclasses import dataclass
from pathlib import Path
from string import Template

from devcluster import kubectl
from devcluster.instance import REGISTRY_NAME, Instance

MANIFESTS = Path(__file__).resolve().parent / "addons"


@dataclass(frozen=True)
class Addon:
    """A Deployment that must work before a cluster counts as up.

    Args:
        name: of the Deployment, and of its manifest.
        namespace: where it is.
        selector: of its pods.
        replicas: how many of them.
    """

    name: str
    namespace: str
    selector: str
    replicas: int


INGRESS_LABEL = "package-platform/ingress=true"
"""The label of the nodes that carry the stack's ingress."""

KUBELET_ACCESS = "kubelet-access"
"""The manifest that a cluster needs even without add-ons."""

LOCAL_PATH = "local-path-provisioner"
"""The manifest of what makes volumes."""

ALL = (Addon("coredns", "kube-system", "k8s-app=kube-dns", replicas=2),)


def render(instance: Instance, name: str) -> str:
    """Return the manifest `name` of the directory `addons` with the instance's values in it."""
    values = {
        "registry": REGISTRY_NAME,
        "hub_address": str(instance.hub.address),
        "dns_address": str(instance.dns_address),
    }
    return Template((MANIFESTS / f"{name}.yaml").read_text()).substitute(values)


def apply(instance: Instance, names: list[str]) -> None:
    """Apply manifests server-side; what is right already stays untouched.

    Raises:
        SetupError: the API refused one.
    """
    manifests = "---\n".join(render(instance, name) for name in names)
    options = ["--server-side", "--force-conflicts", "--field-manager=devcluster", "--filename=-"]
    kubectl.run(instance, "apply", *options, text=manifests)


def label_ingress_nodes(instance: Instance) -> None:
    """Let the ingress run on every node, as an operator would.

    Raises:
        SetupError: the API refused it.
    """
    names = [node.name for node in instance.nodes]
    kubectl.run(instance, "label", "nodes", *names, INGRESS_LABEL, "--overwrite")
