"""Pure functions from the model to Kubernetes manifests, which are plain dicts in the API's own form.

What is rendered here is what is checked against the API's schemas, stored as golden files and applied.
"""

from typing import Any

Manifest = dict[str, Any]
"""A Kubernetes object as the API documents it: ``apiVersion``, ``kind``, ``metadata`` and the rest."""
