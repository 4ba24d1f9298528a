"""The image of keepalived: Debian's program, and busybox, nft and conntrack for its scripts, with their libraries."""

from pathlib import Path

from devcluster.progress import Progress
from devcluster.unpacked import Recipe, ensure_root

VERSION = "2.2.7-2"
"""keepalived's own, and the number of what is put beside it."""
PROGRAM = "usr/sbin/keepalived"
BUSYBOX = "bin/busybox"
NFT = "usr/sbin/nft"
CONNTRACK = "usr/sbin/conntrack"
RECIPE = Recipe(
    name="keepalived",
    packages=("keepalived", "busybox", "nftables", "conntrack"),
    programs=(PROGRAM, BUSYBOX, NFT, CONNTRACK),
)


def root(progress: Progress) -> Path:
    """Return the folder with everything that belongs into the image, downloading what the cache lacks.

    Raises:
        SetupError: the packages can't be had.
    """
    return ensure_root(RECIPE, progress)
