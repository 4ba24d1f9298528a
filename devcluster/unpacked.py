"""Programs of Debian for images: packages downloaded, unpacked and cut down to what the programs load."""

import hashlib
import json
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster import commands, debian
from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.toolchain import cache_folder, locked, replacing_folder

# Where the kernel looks for the loader, by `uname -m`; the path is part of every program's file.
_LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
_LAYOUT_VERSION = "1"  # raised when this module lays the folder out in another way


@dataclass(frozen=True)
class Recipe:
    """What is taken from which packages.

    Attributes:
        name: of the folder in the cache, and in messages.
        packages: that hold the programs and files; what they need of shared libraries is found out.
        programs: paths of the programs, without the first slash; their libraries come along.
        files: paths of further files that are kept as they are.
    """

    name: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    files: tuple[str, ...] = ()


def ensure_root(recipe: Recipe, progress: Progress) -> Path:
    """Return a folder that holds the recipe's programs, libraries and files, at their paths in an image.

    It is made once for each release of the operating system, and stays until the cache is emptied: the
    versions of the packages are in `packages.json` beside it.

    Raises:
        SetupError: the packages can't be had, or lack a program or library.
    """
    system = platform.freedesktop_os_release()
    facts = (_LAYOUT_VERSION, repr(recipe), system["ID"], system.get("VERSION_ID", ""), platform.machine())
    folder = cache_folder() / "debian"
    target = folder / f"{recipe.name}-{hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:12]}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{recipe.name}.lock", f"wait for another download of {recipe.name}", progress):
            if not target.is_dir():
                with progress.step(f"download {recipe.name}"):
                    _make(recipe, target)
    return target / "root"


def _make(recipe: Recipe, target: Path) -> None:
    with replacing_folder(target) as unfinished, tempfile.TemporaryDirectory(dir=unfinished) as work:
        archives, unpacked = Path(work) / "archives", Path(work) / "unpacked"
        archives.mkdir()
        unpacked.mkdir()
        packages = _download(recipe, archives)
        for package in packages:
            debian.unpack(package, unpacked)
        for path in (*recipe.programs, *recipe.files):
            if not (unpacked / path).is_file():
                names = " ".join(recipe.packages)
                raise SetupError(f"the system's packages {names} have no /{path}: Debian 12 or newer is needed")
        _copy_needed(recipe, unpacked, unfinished / "root")
        versions = {debian.field(package, "Package"): debian.field(package, "Version") for package in packages}
        (unfinished / "packages.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


def _download(recipe: Recipe, folder: Path) -> list[Path]:
    """Download the packages, and the shared libraries that they and those libraries depend on."""
    wanted = set(recipe.packages)
    known: set[str] = set()
    archives: list[Path] = []
    while missing := sorted(wanted - known):
        fresh = debian.download(missing, folder)
        archives += fresh
        known |= set(missing)
        wanted |= {name for archive in fresh for name in library_packages(debian.field(archive, "Depends"))}
    return archives


def library_packages(depends: str) -> list[str]:
    """Return the packages of shared libraries in a `Depends` field, the first of each choice."""
    names = [part.split("|")[0].split("(")[0].split(":")[0].strip() for part in depends.split(",")]
    return sorted({name for name in names if name.startswith("lib") or name == "zlib1g"})


def _copy_needed(recipe: Recipe, unpacked: Path, root: Path) -> None:
    """Copy the programs, what they load, the further files and the licences."""
    loader_path = _LOADERS.get(platform.machine())
    if loader_path is None:
        raise SetupError(f"no {recipe.name} images on {platform.machine()}: supported are {', '.join(_LOADERS)}")
    loader = _find(unpacked, Path(loader_path).name)
    triplet = loader.parent.name
    copies = {loader_path: loader}
    for program in recipe.programs:
        copies[program] = unpacked / program
        for library in _loaded_by(unpacked / program, loader, unpacked, recipe.name):
            copies[f"usr/lib/{triplet}/{library.name}"] = library
    for path in recipe.files:
        copies[path] = unpacked / path
    for licence in unpacked.glob("usr/share/doc/*/copyright"):
        copies[str(licence.relative_to(unpacked))] = licence
    for path, source in copies.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / path)


def _loaded_by(program: Path, loader: Path, unpacked: Path, name: str) -> list[Path]:
    """Ask the unpacked loader which of the unpacked libraries the program loads."""
    folders = [loader.parent, unpacked / "usr/lib" / loader.parent.name]
    listing = commands.run([str(loader), "--library-path", ":".join(map(str, folders)), "--list", str(program)])
    return parse_listing(listing, folders, name)


def parse_listing(listing: str, folders: Sequence[Path], name: str) -> list[Path]:
    """Return the libraries of a loader's listing.

    Args:
        listing: lines such as `libz.so.1 => /somewhere/libz.so.1 (0x00007f)`.
        folders: the only ones from which a library may come.
        name: what the program is called in errors.

    Raises:
        SetupError: a library was not found, or found elsewhere.
    """
    found: list[Path] = []
    for library, path in re.findall(r"^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$", listing, re.MULTILINE):
        if Path(path).parent not in folders:
            raise SetupError(f"{name}'s library {library} is in none of the packages that it depends on ({path})")
        found.append(Path(path))
    return found


def _find(folder: Path, name: str) -> Path:
    """Return the regular file of that name: packages also link to it by absolute paths."""
    for path in sorted(folder.rglob(name)):
        if path.is_file() and not path.is_symlink():
            return path
    raise SetupError(f"Debian's libc6 package has no {name}")
