"""The image with a shell, in which folders for volumes are made and removed: Debian's busybox."""

from pathlib import Path

from devcluster.progress import Progress
from devcluster.unpacked import Recipe, ensure_root

VERSION = "1"
"""Of what is put into the image; Debian's own version is beside it in the cache."""
PROGRAM = "bin/busybox"
RECIPE = Recipe(name="busybox", packages=("busybox",), programs=(PROGRAM,))


def root(progress: Progress) -> Path:
    """Return the folder with everything that belongs into the image, downloading what the cache lacks.

    Raises:
        SetupError: the package can't be had.
    """
    return ensure_root(RECIPE, progress)
