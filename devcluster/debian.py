"""Debian packages: installed where a program is missing, or unpacked into a folder without being installed."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.tooltable import SystemProgram

_SYSTEM_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"))
_LOCK_TIMEOUT_SECONDS = 120


def missing_packages(programs: Iterable[SystemProgram]) -> list[str]:
    """Return the Debian packages of those programs that are not on this machine, sorted, each once."""
    return sorted({program.package for program in programs if not _is_present(program.path)})


def ensure_installed(programs: Iterable[SystemProgram], progress: Progress) -> None:
    """Install the packages of programs that are missing; does nothing when none is.

    Raises:
        SetupError: there is no apt-get, this is not root, or the installation failed.
    """
    packages = missing_packages(programs)
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise SetupError(f"missing programs, and no apt-get here: install what Debian calls {names}")
    if os.geteuid() != 0:
        raise SetupError(f"missing programs: as root, run: apt-get install --no-install-recommends {names}")
    with progress.step(f"install {names}"):
        refresh_lists()
        _apt_get(["install", "-y", "--no-install-recommends", *packages], f"could not install {names}")


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """Download packages without installing them.

    Args:
        packages: their names.
        folder: an existing folder for the `.deb` files.

    Returns:
        The files, sorted by name.

    Raises:
        SetupError: no apt-get, or a download failed with fresh lists too.
    """
    if shutil.which("apt-get") is None:
        raise SetupError(f"no apt-get here to download the Debian packages {' '.join(packages)}")
    before = set(folder.iterdir())
    if not _known(packages):
        refresh_lists()
    try:
        _download(packages, folder)
    except SetupError as error:
        # A mirror removes a package when a newer one comes: old lists name a file that is not there any more.
        if os.geteuid() != 0:
            raise SetupError(f"{error}; apt's lists may be old: as root, run: apt-get update", error.details) from error
        refresh_lists()
        _download(packages, folder)
    return sorted(set(folder.iterdir()) - before)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a `.deb` file's contents below `folder`; runs none of its scripts.

    Raises:
        SetupError: the file can't be read.
    """
    _run(["dpkg-deb", "--extract", str(archive), str(folder)], f"could not unpack {archive.name}")


def field(archive: Path, name: str) -> str:
    """Return a control field of a `.deb` file, such as `Version` or `Depends`; empty when it has none.

    Raises:
        SetupError: the file can't be read.
    """
    return _run(["dpkg-deb", "--field", str(archive), name], f"could not read {archive.name}").strip()


def _is_present(path: str) -> bool:
    if path.startswith("/"):
        return Path(path).exists()
    return shutil.which(path) is not None or shutil.which(path, path=_SYSTEM_PATH) is not None


def _known(packages: Sequence[str]) -> bool:
    """Tell whether apt's lists, which a fresh machine lacks, have all packages."""
    return (
        subprocess.run(
            ["apt-cache", "show", "--no-all-versions", *packages], capture_output=True, check=False
        ).returncode
        == 0
    )


def _download(packages: Sequence[str], folder: Path) -> None:
    # Without a sandbox user apt can write to a folder that only we may enter.
    _apt_get(
        ["-o", "APT::Sandbox::User=root", "download", *packages],
        f"could not download the Debian packages {' '.join(packages)}",
        folder,
    )


@functools.cache
def refresh_lists() -> None:
    """Run `apt-get update`, once in the life of this process."""
    if os.geteuid() != 0:
        raise SetupError("apt's package lists are empty: as root, run: apt-get update")
    _apt_get(["update"], "could not refresh apt's package lists")


def _apt_get(arguments: Sequence[str], failure: str, folder: Path | None = None) -> None:
    options = ["-q", "-o", f"DPkg::Lock::Timeout={_LOCK_TIMEOUT_SECONDS}", "-o", "Acquire::Retries=3"]
    _run(["apt-get", *options, *arguments], failure, folder)


def _run(command: Sequence[str], failure: str, folder: Path | None = None) -> str:
    """Run a command and return its standard output; its last error line becomes part of the one-line error."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise SetupError(f"{failure}: {lines[-1] if lines else 'no reason given'}", "\n".join(lines[-20:]))
    return done.stdout
