"""OCI images as folders (https://github.com/opencontainers/image-spec/blob/main/image-layout.md): read, made of layers.

A layout that is made here names its lower layers without having them: they are in the registry, under ``base``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from model.fields import plain_mapping
from pipeline.errors import PipelineError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# What Docker calls the same things.
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_EXECUTABLE, _PLAIN = 0o755, 0o644
_TOP = "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var"
_USR = "bin include lib lib32 lib64 libexec libx32 local sbin share src"
_LOCAL = "bin etc include lib libexec sbin share src"
_VAR = "cache lib local lock log mail opt run spool tmp"
# An entry for a folder would give one of the base our owner, mode and time: /tmp would be writable for root alone, and
# where /bin is a link, a folder would replace it. Which folders a base has is not known here, as its layers stay in the
# registry; so those that every system has, and people's homes, get no entry: where one is missing after all, whoever
# unpacks the layer makes it. Others get one, as not everybody makes those readable for all.
_OF_THE_BASE = frozenset(
    _TOP.split()
    + [
        f"{parent}/{name}"
        for parent, names in (("usr", _USR), ("usr/local", _LOCAL), ("var", _VAR))
        for name in names.split()
    ]
)


class ImageError(PipelineError):
    """What a build left is no image that can be pushed."""


@dataclass(frozen=True)
class Image:
    """An image of one platform.

    Args:
        layers: Descriptors of its layers, the lowest first.
        config: Its configuration: platform, user, entry point, labels, what its layers are unpacked.
    """

    layers: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]

    def labelled(self, labels: Mapping[str, str]) -> Image:
        """Return it with more labels."""
        own = plain_mapping(self.config.get("config")) or {}
        before = plain_mapping(own.get("Labels")) or {}
        return Image(self.layers, {**self.config, "config": {**own, "Labels": {**before, **labels}}})

    def documents(self) -> tuple[bytes, bytes]:
        """Return its configuration and its manifest as they are stored."""
        config = encoded(self.config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{**layer, "mediaType": _oci(str(layer["mediaType"]))} for layer in self.layers],
        }
        return config, encoded(manifest)


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return a document as bytes; the same one always the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest_of(content: bytes) -> str:
    """Return ``sha256:…`` of a content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob(folder: Path, digest: str) -> Path:
    """Return where a layout has a blob."""
    algorithm, _, value = digest.partition(":")
    if not value.isalnum() or not algorithm.isalnum():
        raise ImageError(f"{folder}: {digest!r} is no digest")
    return folder / "blobs" / algorithm / value


def read(folder: Path) -> Image:
    """Return the image of a layout.

    Raises:
        ImageError: If there is none, or not exactly one.
    """
    try:
        found = _one(folder, json.loads((folder / "index.json").read_bytes()))
        manifest = json.loads(blob(folder, found).read_bytes())
        config = json.loads(blob(folder, manifest["config"]["digest"]).read_bytes())
        return Image(cast("Sequence[Mapping[str, Any]]", manifest["layers"]), config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{folder}: is no OCI image layout: {error}") from None


def _one(folder: Path, index: Mapping[str, Any]) -> str:
    """Return the digest of the only manifest; attestations beside it do not count, an index in an index does."""
    images = [
        each
        for each in index["manifests"]
        if (plain_mapping(each.get("annotations")) or {}).get("vnd.docker.reference.type") != "attestation-manifest"
    ]
    if len(images) != 1:
        raise ImageError(f"{folder}: has {len(images)} images: build for one platform")
    digest = str(images[0]["digest"])
    if str(images[0].get("mediaType", MANIFEST)).endswith(("index.v1+json", "manifest.list.v2+json")):
        return _one(folder, json.loads(blob(folder, digest).read_bytes()))
    return digest


def layered(  # noqa: PLR0913 - the parts of an image
    folder: Path, base: Image, tree: Path, into: str, *, entrypoint: Sequence[str] | None, modified: int
) -> None:
    """Write a layout: a base, and one layer with the files of a folder.

    Args:
        folder: Where; it is made anew.
        base: The image below.
        tree: Folder whose content goes into the layer.
        into: Folder in the image for it.
        entrypoint: Program and arguments; those of the base when there is none.
        modified: Time of every file, in seconds since the epoch: nginx makes its ETag of time and size, so two releases
            must not share one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    unpacked = _archive(tree, into, modified)
    packed = gzip.compress(unpacked, compresslevel=6, mtime=0)
    own = plain_mapping(base.config.get("config")) or {}
    if entrypoint:
        own = {**{name: value for name, value in own.items() if name != "Cmd"}, "Entrypoint": list(entrypoint)}
    rootfs = plain_mapping(base.config.get("rootfs")) or {}
    config = {
        **{name: value for name, value in base.config.items() if name not in {"history", "created"}},
        "config": own,
        "rootfs": {"type": "layers", "diff_ids": [*rootfs.get("diff_ids", []), digest_of(unpacked)]},
    }
    layer = {"mediaType": LAYER, "digest": digest_of(packed), "size": len(packed)}
    stored, manifest = Image([*base.layers, layer], config).documents()
    for content in (packed, stored, manifest):
        path = blob(folder, digest_of(content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    entry = {"mediaType": MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
    (folder / "index.json").write_bytes(encoded({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_bytes(encoded({"imageLayoutVersion": "1.0.0"}))


def _archive(tree: Path, into: str, modified: int) -> bytes:
    """Return a folder as a tar archive; the same files always give the same bytes."""
    stream = io.BytesIO()
    root = PurePosixPath(into.lstrip("/"))
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for parent in reversed([root, *root.parents[:-1]]):
            if not _is_of_the_base(parent):
                archive.addfile(_entry(str(parent), tarfile.DIRTYPE, _EXECUTABLE, modified))
        for path in sorted(tree.rglob("*")):
            place = root / path.relative_to(tree).as_posix()
            name = str(place)
            if path.is_symlink():
                link = _entry(name, tarfile.SYMTYPE, 0o777, modified)
                link.linkname = str(path.readlink())
                archive.addfile(link)
            elif path.is_dir():
                if not _is_of_the_base(place):
                    archive.addfile(_entry(name, tarfile.DIRTYPE, _EXECUTABLE, modified))
            else:
                content = path.read_bytes()
                mode = _EXECUTABLE if path.stat().st_mode & 0o100 else _PLAIN
                file = _entry(name, tarfile.REGTYPE, mode, modified)
                file.size = len(content)
                archive.addfile(file, io.BytesIO(content))
    return stream.getvalue()


def _is_of_the_base(folder: PurePosixPath) -> bool:
    return str(folder) in _OF_THE_BASE or folder.parent == PurePosixPath("home")


def _entry(name: str, kind: bytes, mode: int, modified: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, modified
    return entry


def _oci(media_type: str) -> str:
    return LAYER if media_type == _DOCKER_LAYER else media_type
