"""The image of keepalived: Debian's program and busybox for its checks, with their libraries."""

from pathlib import Path

from devcluster.progress import Progress
from devcluster.unpacked import Recipe, ensure_root

VERSION = "2.2.7"
PROGRAM = "usr/sbin/keepalived"
BUSYBOX = "bin/busybox"
RECIPE = Recipe(
    name="keepalived",
    packages=("keepalived", "busybox"),
    programs=(PROGRAM, BUSYBOX),
)


def root(progress: Progress) -> Path:
    """Return the folder with everything that belongs into the image, downloading what the cache lacks.

    Raises:
        SetupError: the packages can't be had.
    """
    return ensure_root(RECIPE, progress)
