"""The real nginx for a front end's image: Debian's packages, unpacked and cut down to what the program loads."""

import hashlib
import json
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devcluster import commands, debian
from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.toolchain import cache_folder, locked, replacing_folder

PROGRAM = "usr/sbin/nginx"

# Where the kernel looks for the loader, by `uname -m`; the path is part of every program's file.
_LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
_LAYOUT_VERSION = "1"  # raised when this module lays the folder out in another way


def ensure_root(progress: Progress) -> Path:
    """Return a folder that holds nginx, its libraries and its MIME types, at their paths in an image.

    It is made once for each release of the operating system, and stays until the cache is emptied: the
    versions of the packages are in `packages.json` beside it.

    Raises:
        SetupError: the packages can't be had, or lack a library.
    """
    system = platform.freedesktop_os_release()
    key = "\0".join((_LAYOUT_VERSION, system["ID"], system.get("VERSION_ID", ""), platform.machine()))
    folder = cache_folder() / "debian"
    target = folder / f"nginx-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "nginx.lock", "wait for another download of nginx", progress):
            if not target.is_dir():
                with progress.step("download nginx"):
                    _make(target)
    return target / "root"


def _make(target: Path) -> None:
    with replacing_folder(target) as unfinished, tempfile.TemporaryDirectory(dir=unfinished) as work:
        archives, unpacked = Path(work) / "archives", Path(work) / "unpacked"
        archives.mkdir()
        unpacked.mkdir()
        packages = _download(archives)
        for package in packages:
            debian.unpack(package, unpacked)
        if not (unpacked / PROGRAM).is_file():
            raise SetupError(f"the system's nginx package has no /{PROGRAM}: Debian 12 or newer is needed")
        _copy_needed(unpacked, unfinished / "root")
        versions = {debian.field(package, "Package"): debian.field(package, "Version") for package in packages}
        (unfinished / "packages.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


def _download(folder: Path) -> list[Path]:
    """Download nginx and the libraries that its package depends on."""
    own = debian.download(["nginx", "nginx-common"], folder)
    wanted = {name for archive in own for name in library_packages(debian.field(archive, "Depends"))}
    return [*own, *debian.download(sorted(wanted), folder)]


def library_packages(depends: str) -> list[str]:
    """Return the packages of shared libraries in a `Depends` field, the first of each choice."""
    names = [part.split("|")[0].split("(")[0].strip() for part in depends.split(",")]
    return sorted({name for name in names if name.startswith("lib") or name == "zlib1g"})


def _copy_needed(unpacked: Path, root: Path) -> None:
    """Copy the program, what it loads, its MIME types and the licences."""
    loader_path = _LOADERS.get(platform.machine())
    if loader_path is None:
        raise SetupError(f"no front end images on {platform.machine()}: supported are {', '.join(_LOADERS)}")
    loader = _find(unpacked, Path(loader_path).name)
    libraries = f"usr/lib/{loader.parent.name}"
    copies = {PROGRAM: unpacked / PROGRAM, loader_path: loader}
    for library in _loaded_by(unpacked / PROGRAM, loader):
        copies[f"{libraries}/{library.name}"] = library
    copies["etc/nginx/mime.types"] = unpacked / "etc/nginx/mime.types"
    for licence in unpacked.glob("usr/share/doc/*/copyright"):
        copies[str(licence.relative_to(unpacked))] = licence
    for path, source in copies.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / path)


def _loaded_by(program: Path, loader: Path) -> list[Path]:
    """Ask the unpacked loader which of the unpacked libraries the program loads."""
    folders = [loader.parent, program.parents[2] / "usr/lib" / loader.parent.name]
    listing = commands.run([str(loader), "--library-path", ":".join(map(str, folders)), "--list", str(program)])
    return parse_listing(listing, folders)


def parse_listing(listing: str, folders: Sequence[Path]) -> list[Path]:
    """Return the libraries of a loader's listing.

    Args:
        listing: lines such as `libz.so.1 => /somewhere/libz.so.1 (0x00007f)`.
        folders: the only ones from which a library may come.

    Raises:
        SetupError: a library was not found, or found elsewhere.
    """
    found: list[Path] = []
    for name, path in re.findall(r"^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$", listing, re.MULTILINE):
        if Path(path).parent not in folders:
            raise SetupError(f"nginx's library {name} is in none of the packages that it depends on ({path})")
        found.append(Path(path))
    return found


def _find(folder: Path, name: str) -> Path:
    """Return the regular file of that name: packages also link to it by absolute paths."""
    for path in sorted(folder.rglob(name)):
        if path.is_file() and not path.is_symlink():
            return path
    raise SetupError(f"Debian's libc6 package has no {name}")
