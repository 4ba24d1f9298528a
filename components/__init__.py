"""Reusable Pulumi components: one typed arguments object each, secure defaults, children parented."""

from components.frontend_app import FrontendApp, FrontendAppArgs
from components.package_app import PackageApp, PackageAppArgs

__all__ = ["FrontendApp", "FrontendAppArgs", "PackageApp", "PackageAppArgs"]
