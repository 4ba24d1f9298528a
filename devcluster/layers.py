"""Image layers as tar files that are the same, byte for byte, wherever and whenever they are written."""

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FOLDER_MODE = 0o755


@dataclass(frozen=True)
class Entry:
    """One path of a layer, owned by root.

    Attributes:
        path: absolute, inside the image.
        content: a file's bytes, or the file of this machine that holds them; None makes a folder.
        mode: permission bits.
    """

    path: str
    content: bytes | Path | None
    mode: int = 0o644

    def read(self) -> bytes:
        """Return a file's bytes; none for a folder."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content or b""


@dataclass(frozen=True)
class Layer:
    """The entries of a layer.

    Attributes:
        entries: in any order; folders above them are added.
        modified: modification time of everything in it, in seconds since 1970. Web servers derive the answer
            to "has this changed?" from it, so files that differ between releases need different times.
    """

    entries: tuple[Entry, ...]
    modified: int = 0

    def identity(self) -> str:
        """Return a hash of all that decides the layer's bytes."""
        digest = hashlib.sha256(f"{self.modified}\0".encode())
        for entry in sorted(self.entries, key=lambda entry: entry.path):
            content = hashlib.sha256(entry.read()).hexdigest()
            digest.update(f"{entry.path}\0{entry.mode:o}\0{entry.content is None}\0{content}\0".encode())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the layer as an uncompressed tar file."""
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for entry in _with_parents(self.entries):
                content = entry.read()
                archive.addfile(self._header(entry, len(content)), io.BytesIO(content))

    def _header(self, entry: Entry, size: int) -> tarfile.TarInfo:
        header = tarfile.TarInfo(entry.path.lstrip("/"))
        header.mode = entry.mode
        header.mtime = self.modified
        header.size = size
        if entry.content is None:
            header.type = tarfile.DIRTYPE
        return header


def files_below(folder: Path) -> tuple[Entry, ...]:
    """Return every file of a folder as an entry at the same path, executable where it is for its owner."""
    return tuple(
        Entry(f"/{path.relative_to(folder)}", path, 0o755 if path.stat().st_mode & 0o100 else 0o644)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    )


def _with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries and the folders above them, each once, a folder before what it holds."""
    known = {entry.path: entry for entry in entries}
    for entry in tuple(known.values()):
        for parent in PurePosixPath(entry.path).parents:
            if str(parent) != "/":
                known.setdefault(str(parent), Entry(str(parent), None, FOLDER_MODE))
    return [known[path] for path in sorted(known)]
