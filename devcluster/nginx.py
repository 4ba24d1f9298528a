"""The real nginx for a front end's image: Debian's program with its libraries and its MIME types."""

from pathlib import Path

from devcluster import unpacked
from devcluster.progress import Progress

PROGRAM = "usr/sbin/nginx"
RECIPE = unpacked.Recipe(
    name="nginx", packages=("nginx", "nginx-common"), programs=(PROGRAM,), files=("etc/nginx/mime.types",)
)


def ensure_root(progress: Progress) -> Path:
    """Return a folder that holds nginx, its libraries and its MIME types, at their paths in an image.

    Raises:
        SetupError: the packages can't be had, or lack a library.
    """
    return unpacked.ensure_root(RECIPE, progress)
