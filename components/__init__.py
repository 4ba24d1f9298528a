"""Reusable Pulumi components: one typed arguments object each, secure defaults, children parented."""

from components.frontend_app import FrontendApp, FrontendAppArgs
from components.ha_ingress import HaIngress, HaIngressArgs
from components.package_app import PackageApp, PackageAppArgs
from components.storage import Storage, StorageArgs

__all__ = [
    "FrontendApp",
    "FrontendAppArgs",
    "HaIngress",
    "HaIngressArgs",
    "PackageApp",
    "PackageAppArgs",
    "Storage",
    "StorageArgs",
]
