"""Making a large stack out of a small one: the state of further projects, copied from those that were deployed. Pure.

Creating a thousand resources takes longer than everything that is measured. A copied state is proven by the first
preview, which must find no change.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.generated import GeneratedProject

TEMPLATES = {"backend": GeneratedProject(1), "frontend": GeneratedProject(3)}
"""Kind of project → which one is copied; never the first, whose tag is changed."""
SMALLEST = 1 + max(project.number for project in TEMPLATES.values())
"""Projects that a stack needs for both templates to be there."""

_MANIFEST_FIELDS = ("apiVersion", "kind", "metadata", "spec", "automountServiceAccountToken")


def copied_resources(state: Mapping[str, Any], project: GeneratedProject) -> list[dict[str, Any]]:
    """Return the resources of a project that is not in the state, as its template has them.

    Args:
        state: As `pulumi stack export` gives it; it holds the templates.
        project: The project to make.
    """
    template = TEMPLATES[project.kind]
    found = [each for each in state["deployment"]["resources"] if _belongs(each, template)]
    # All names, tags and paths differ by this mark alone, and no digest or uid can hold it: `p` is no hexadecimal.
    text = json.dumps(found).replace(template.mark, project.mark).replace(template.mark.upper(), project.mark.upper())
    return json.loads(text)


def with_copies(state: Mapping[str, Any], projects: Sequence[GeneratedProject]) -> dict[str, Any]:
    """Return the state with the resources of further projects."""
    resources = [*state["deployment"]["resources"]]
    for project in projects:
        resources += copied_resources(state, project)
    return {**state, "deployment": {**state["deployment"], "resources": resources}}


def manifests(resources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Kubernetes objects of resources as one `List`, for kubectl."""
    objects = [
        {key: value for key, value in each["inputs"].items() if key in _MANIFEST_FIELDS}
        for each in resources
        if each["type"].startswith("kubernetes:")
    ]
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _belongs(resource: Mapping[str, Any], project: GeneratedProject) -> bool:
    return project.urn in (resource["urn"], resource.get("parent"))
