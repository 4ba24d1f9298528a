"""The images: which there are, what differs between their tags, and that same inputs give same digests."""

import hashlib
import json
import os
import platform
import re
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devcluster import debian, images, nginx, toolchain, unpacked
from devcluster.failure import SetupError
from devcluster.layers import Entry, Layer, files_below
from devcluster.progress import Progress

PROGRAM = Layer((Entry("/backend", b"program", 0o755),))
SERVER = Layer((Entry("/usr/sbin/nginx", b"server", 0o755),))


def _names(made: list[images.Image]) -> list[str]:
    return [f"{image.repository}:{tag}" for image in made for tag in image.tags]


def _site(tag: str) -> dict[str, bytes]:
    return {Path(entry.path).name: entry.read() for entry in images.site_layer("packet", tag).entries}


def test_every_project_has_every_tag() -> None:
    names = _names([*images.back_end_images(PROGRAM), *images.front_end_images(SERVER)])
    projects = {name.partition(":")[0] for name in names}
    assert len(names) == len(set(names)) == 3 * (5 + 1 + 6) + 5 * (5 + 1)
    assert len(projects) == 8
    assert {f"{project}:2022-08-03-18-54" for project in projects} < set(names)
    assert {f"{project}:latest" for project in projects} < set(names)
    assert "front/packet:bad-crash" not in names


def test_back_end_tags_share_all_layers_and_differ_in_their_environment() -> None:
    made = images.back_end_images(PROGRAM)
    assert {image.layers for image in made} == {(images.BASE_LAYER, PROGRAM)}
    of_one = [image for image in made if image.repository == "back/sjzy.package.api"]
    assert len({image.env for image in of_one}) == len(of_one) == 11
    crash = next(image for image in of_one if image.tags == ("bad-crash",))
    assert crash.env == ("PROJECT=SJZY.Package.Api", "TAG=bad-crash", "CRASH_AT_START=1")


def test_front_end_tags_differ_only_in_the_last_layer() -> None:
    of_one = [image for image in images.front_end_images(SERVER) if image.repository == "front/packet"]
    assert len({image.layers[:-1] for image in of_one}) == 1
    assert len({image.layers[-1].identity() for image in of_one}) == len(of_one) == 5


def test_page_names_the_release_and_assets_by_their_content() -> None:
    files = _site("2022-08-03-18-54")
    page = files["index.html"].decode()
    assert "packet" in page
    assert "2022-08-03-18-54" in page
    assets = re.findall(r'"assets/(app\.[0-9a-f]{8}\.(?:js|css))"', page)
    assert len(assets) == 2
    for name in assets:
        assert hashlib.sha256(files[name]).hexdigest()[:8] == name.split(".")[1]


def test_no_asset_is_the_same_in_two_releases() -> None:
    sites = [_site(tag) for tag in images.TAGS]
    names = [name for site in sites for name in site if name != "index.html"]
    assert len(names) == len(set(names)) == 10


def test_pages_of_two_releases_differ_in_time_as_they_do_not_in_length() -> None:
    """The server makes its ETag of both: equal ones would let a browser keep the old page."""
    first, second = (images.site_layer("packet", tag) for tag in images.TAGS[:2])
    lengths = {len(_site(tag)["index.html"]) for tag in images.TAGS[:2]}
    assert len(lengths) == 1
    assert first.modified != second.modified


def test_labels_are_fixed() -> None:
    first, second = (images.back_end_images(PROGRAM)[0].labels() for _ in range(2))
    assert first == second
    assert re.fullmatch(r"[0-9a-f]{40}", first.pop("org.opencontainers.image.revision"))
    assert first == {
        "org.opencontainers.image.title": "SJZY.Package.Api",
        "org.opencontainers.image.version": "2022-07-15-17-01",
        "org.opencontainers.image.created": "2022-07-15T17:01:00+00:00",
    }


def test_tag_names_its_time() -> None:
    assert images.created_at("2022-07-15-17-01") == datetime(2022, 7, 15, 17, 1, tzinfo=UTC)


def test_layer_is_the_same_whatever_the_files_times_and_order(tmp_path: Path) -> None:
    for name, when in (("one", 1), ("two", 2_000_000_000)):
        folder = tmp_path / name / "usr" / "bin"
        folder.mkdir(parents=True)
        (folder / "tool").write_text("tool")
        (folder / "tool").chmod(0o700 if name == "one" else 0o755)
        (folder.parent / "readme").write_text("read")
        os.utime(folder / "tool", (when, when))
    written: list[bytes] = []
    for name, step in (("one", 1), ("two", -1)):
        layer = Layer(files_below(tmp_path / name)[::step], modified=7)
        layer.write(tmp_path / f"{name}.tar")
        written.append((tmp_path / f"{name}.tar").read_bytes())
    assert written[0] == written[1]


def test_layer_has_folders_before_what_they_hold_all_owned_by_root(tmp_path: Path) -> None:
    layer = Layer((Entry("/a/b/file", b"x", 0o755), Entry("/tmp", None, 0o1777)), modified=5)
    layer.write(tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as archive:
        members = [(m.name, m.isdir(), m.mode, m.uid, m.gid, m.mtime) for m in archive.getmembers()]
    assert members == [
        ("a", True, 0o755, 0, 0, 5),
        ("a/b", True, 0o755, 0, 0, 5),
        ("a/b/file", False, 0o755, 0, 0, 5),
        ("tmp", True, 0o1777, 0, 0, 5),
    ]


@pytest.mark.parametrize(
    "other",
    [
        Layer((Entry("/file", b"y"),)),
        Layer((Entry("/other", b"x"),)),
        Layer((Entry("/file", b"x", 0o755),)),
        Layer((Entry("/file", b"x"),), modified=1),
        Layer((Entry("/file", b"x"), Entry("/more", None))),
    ],
)
def test_identity_changes_with_everything(other: Layer) -> None:
    assert other.identity() != Layer((Entry("/file", b"x"),)).identity()


def test_same_inputs_give_the_same_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds in two empty caches, by the real image builder: the whole layouts are equal."""
    progress = Progress(quiet=True)
    builder = toolchain.build(toolchain.find("imagebuild"), progress)

    def built(*_: object) -> Path:
        return builder

    monkeypatch.setattr(images, "build", built)
    made = [*images.back_end_images(PROGRAM), *images.front_end_images(SERVER)]
    layouts: list[Path] = []
    for name in ("one", "two"):
        monkeypatch.setenv("PACKAGE_PLATFORM_CACHE", str(tmp_path / name))
        layouts.append(images.ensure_layout("sample", made, progress))
    contents = [
        {str(path.relative_to(layout)): path.read_bytes() for path in layout.rglob("*") if path.is_file()}
        for layout in layouts
    ]
    assert contents[0] == contents[1]
    digests = _digests(layouts[0])
    assert len(digests) == 66
    assert digests["front/packet:latest"] == digests["front/packet:2022-08-03-18-54"]
    assert len(set(digests.values())) == 66 - 8


def _digests(layout: Path) -> dict[str, str]:
    index = json.loads((layout / "index.json").read_text())
    return {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in index["manifests"]}


def test_push_refuses_an_endpoint_that_is_none(tmp_path: Path) -> None:
    progress = Progress(quiet=True)
    assert tmp_path.is_dir()
    with pytest.raises(SetupError, match=r"^could not push the sample .*: the endpoint must be http://host:port"):
        images.push_layout("sample", tmp_path, "10.89.0.5:5000", progress)


def test_only_shared_libraries_are_downloaded_with_nginx() -> None:
    depends = "libc6 (>= 2.34), libssl3t64 | libssl3 (>= 3.0.0), zlib1g (>= 1:1.1.4), iproute2, nginx-common (<< 2)"
    assert unpacked.library_packages(depends) == ["libc6", "libssl3t64", "zlib1g"]


def test_loader_listing_gives_the_libraries() -> None:
    listing = (
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibz.so.1 => /unpacked/lib/libz.so.1 (0x00007f)\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
    )
    assert unpacked.parse_listing(listing, [Path("/unpacked/lib")], "nginx") == [Path("/unpacked/lib/libz.so.1")]


@pytest.mark.parametrize("where", ["not found", "/lib/x86_64-linux-gnu/libz.so.1 (0x00007f)"])
def test_library_from_elsewhere_is_refused(where: str) -> None:
    with pytest.raises(SetupError, match=r"nginx's library libz.so.1 is in none of the packages"):
        unpacked.parse_listing(f"\tlibz.so.1 => {where}\n", [Path("/unpacked/lib")], "nginx")


def test_machine_that_is_not_supported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PACKAGE_PLATFORM_CACHE", str(tmp_path))

    def download(packages: list[str], folder: Path) -> list[Path]:
        return [folder / name for name in packages]

    def unpack(_archive: Path, folder: Path) -> None:
        for path in (*nginx.RECIPE.programs, *nginx.RECIPE.files):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()

    def field(*_: object) -> str:
        return ""

    monkeypatch.setattr(debian, "download", download)
    monkeypatch.setattr(debian, "unpack", unpack)
    monkeypatch.setattr(debian, "field", field)
    with pytest.raises(SetupError, match=r"^no nginx images on riscv64: supported are x86_64, aarch64$"):
        nginx.ensure_root(Progress(quiet=True))
    assert not list((tmp_path / "debian").glob("nginx-*"))
