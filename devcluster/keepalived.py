"""The image of keepalived: Debian's program, busybox and nft for its scripts, with their libraries."""

from pathlib import Path

from devcluster.progress import Progress
from devcluster.unpacked import Recipe, ensure_root

VERSION = "2.2.7-1"
"""keepalived's own, and the number of what is put beside it."""
PROGRAM = "usr/sbin/keepalived"
BUSYBOX = "bin/busybox"
NFT = "usr/sbin/nft"
RECIPE = Recipe(
    name="keepalived",
    packages=("keepalived", "busybox", "nftables"),
    programs=(PROGRAM, BUSYBOX, NFT),
)


def root(progress: Progress) -> Path:
    """Return the folder with everything that belongs into the image, downloading what the cache lacks.

    Raises:
        SetupError: the packages can't be had.
    """
    return ensure_root(RECIPE, progress)
