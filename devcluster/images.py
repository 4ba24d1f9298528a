"""The images of the embedded cluster: what the cluster itself runs, and the sample applications.

They are written once for each state of their inputs as an OCI image layout in the cache, and pushed from there;
same inputs, same digests.
"""

import dataclasses
import hashlib
import json
import platform
import string
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from devcluster import busybox, commands, keepalived, nginx
from devcluster.failure import SetupError
from devcluster.layers import Entry, Layer, files_below
from devcluster.progress import Progress
from devcluster.toolchain import ROOT, build, cache_folder, find, locked, replacing_folder
from devcluster.tooltable import COREDNS, LOCAL_PATH, TRAEFIK

USER = 65532
PORT = "8080/tcp"
SAMPLES = ROOT / "devcluster" / "samples"

BACK_ENDS = {
    "back/sjzy.package.api": "SJZY.Package.Api",
    "back/sjzy.package.output.api": "SJZY.Package.Output.Api",
    "back/sjzy.package.task.api": "SJZY.Package.Task.Api",
}
FRONT_ENDS = {
    "front/packet": "packet",
    "front/packet_label": "packet_label",
    "front/packet_bsi_pc_ui": "packet_bsi_pc_ui",
    "front/packet_shopman_web_ui": "packet_shopman_web_ui",
    "front/packet_outcustome_pc_ui": "packet_outcustome_pc_ui",
}
BACK_BASE, FRONT_BASE, BASE_TAG = "base/backend", "base/frontend", "1"
TAGS = (
    "2022-07-15-17-01",
    "2022-08-01-19-41",
    "2022-08-02-10-15",
    "2022-08-02-16-59",
    "2022-08-03-18-54",
)
# Back ends whose release fails, each in its own way. The slow one is slower than any start that is waited for.
BAD_TAGS = {
    "bad-crash": "CRASH_AT_START=1",
    "bad-unready": "NEVER_READY=1",
    "bad-slow-start": "START_DELAY=300s",
    "bad-errors": "FAIL_REQUESTS=1",
    "bad-migration": "FAIL_MIGRATION=1",
}
UNKNOWN_USER_TAG = "bad-user"
"""Its user has only a name: no node can tell whether that is root, so none makes a container of it."""
_BAD_CREATED = datetime(2022, 8, 4, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PUSH_TIMEOUT_SECONDS = 300.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

BASE_LAYER = Layer(
    (
        Entry("/etc/passwd", f"root:x:0:0::/:\napp:x:{USER}:{USER}::/:\n".encode()),
        Entry("/etc/group", f"root:x:0:\napp:x:{USER}:\n".encode()),
        Entry("/tmp", None, 0o1777),  # noqa: S108 - a path in an image
    )
)


@dataclass(frozen=True)
class Image:
    """One image, under one or more tags.

    Attributes:
        repository: its name in the registry.
        tags: each becomes a name of the same digest.
        title: what it is, for people: the Gitea project of a sample.
        layers: the lowest first.
        entrypoint: the program and its first arguments.
        created: told in the image; a fixed time, never now.
        env: `NAME=value`.
        ports: such as `8080/tcp`.
        stop_signal: by which a node asks it to end; SIGTERM when empty.
        user: that its program runs as.
    """

    repository: str
    tags: tuple[str, ...]
    title: str
    layers: tuple[Layer, ...] = field(repr=False)
    entrypoint: tuple[str, ...]
    created: datetime = _EPOCH
    env: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    stop_signal: str = ""
    user: str = f"{USER}:{USER}"

    def labels(self) -> dict[str, str]:
        """Return the OCI labels. The samples have no repository of their own: the revision is made up."""
        revision = hashlib.sha1(f"{self.repository}:{self.tags[0]}".encode(), usedforsecurity=False)
        prefix = "org.opencontainers.image"
        return {
            f"{prefix}.title": self.title,
            f"{prefix}.version": self.tags[0],
            f"{prefix}.revision": revision.hexdigest(),
            f"{prefix}.created": self.created.isoformat(),
        }

    def planned(self, layer_files: Sequence[str]) -> dict[str, object]:
        """Return the image as `imagebuild` wants it in its plan."""
        return {
            "repository": self.repository,
            "tags": self.tags,
            "layers": layer_files,
            "created": self.created.isoformat(),
            "user": self.user,
            "entrypoint": self.entrypoint,
            "env": self.env,
            "ports": self.ports,
            "stopSignal": self.stop_signal,
            "labels": self.labels(),
        }


@dataclass(frozen=True)
class PushCount:
    """What a push did.

    Attributes:
        pushed: names that were sent.
        present: names that the registry had already, with the same digest.
    """

    pushed: int
    present: int


def push_system(endpoint: str, progress: Progress) -> PushCount:
    """Push what the cluster itself runs, as `sys/<name>:<version>`: from pause to what makes volumes.

    Args:
        endpoint: the registry, such as `http://10.89.0.5:5000`; it is spoken to without a proxy.
        progress: told of building and pushing.

    Raises:
        SetupError: a build failed, or the registry can't be reached or refuses.
    """
    layout = ensure_layout("system", system_images(progress), progress)
    return push_layout("system", layout, endpoint, progress)


def push_samples(endpoint: str, progress: Progress) -> PushCount:
    """Push the sample applications, every project at every tag; see `push_system`."""
    layout = ensure_layout("sample", sample_images(progress), progress)
    return push_layout("sample", layout, endpoint, progress)


def system_images(progress: Progress) -> list[Image]:
    """Return the images of the cluster's own programs, building those that the cache lacks."""
    versions = {
        "pause": "1",
        "coredns": COREDNS.removeprefix("v"),
        "traefik": TRAEFIK.removeprefix("v"),
        "local-path-provisioner": LOCAL_PATH.removeprefix("v"),
    }
    vrrp = Image(
        repository="sys/keepalived",
        tags=(keepalived.VERSION,),
        title="keepalived",
        layers=(BASE_LAYER, Layer(files_below(keepalived.root(progress)))),
        entrypoint=(f"/{keepalived.PROGRAM}",),
    )
    tools = busybox.root(progress)
    shell = Image(
        repository="sys/busybox",
        tags=(busybox.VERSION,),
        title="busybox",
        # It is a shell by the name that it is called by.
        layers=(BASE_LAYER, Layer((*files_below(tools), Entry("/bin/sh", tools / busybox.PROGRAM, 0o755)))),
        entrypoint=("/bin/sh",),
    )
    own = [
        Image(
            repository=f"sys/{name}",
            tags=(version,),
            title=name,
            layers=(BASE_LAYER, _program_layer(build(find(name), progress) / name)),
            entrypoint=(f"/{name}",),
        )
        for name, version in versions.items()
    ]
    return [*own, vrrp, shell]


def sample_images(progress: Progress) -> list[Image]:
    """Return the images of the sample applications, building and downloading what the cache lacks."""
    back_end = _program_layer(build(find("backend"), progress) / "backend")
    server = Layer(files_below(nginx.ensure_root(progress)))
    return [*back_end_images(back_end), *front_end_images(server), *base_images(server)]


def base_images(server: Layer) -> list[Image]:
    """Return what the pipeline puts a build of a sample's source on: all of it but the program, or the site."""
    settings = Layer(files_below(SAMPLES / "frontend" / "server"))
    front = front_end_images(server)[0]
    return [
        Image(BACK_BASE, (BASE_TAG,), "base of the sample back ends", (BASE_LAYER,), ("/app/backend",), ports=(PORT,)),
        dataclasses.replace(
            front,
            repository=FRONT_BASE,
            tags=(BASE_TAG,),
            title="base of the sample front ends",
            layers=(BASE_LAYER, server, settings),
            created=_EPOCH,
        ),
    ]


def back_end_images(program: Layer) -> list[Image]:
    """Return every back end at every tag: they share all layers and differ in their environment."""

    def image(repository: str, tags: tuple[str, ...], created: datetime, *env: str) -> Image:
        project = BACK_ENDS[repository]
        return Image(
            repository=repository,
            tags=tags,
            title=project,
            layers=(BASE_LAYER, program),
            entrypoint=("/backend",),
            created=created,
            env=(f"PROJECT={project}", f"TAG={tags[0]}", *env),
            ports=(PORT,),
        )

    good = [image(name, _with_latest(tag), created_at(tag)) for name in BACK_ENDS for tag in TAGS]
    bad = [image(name, (tag,), _BAD_CREATED, env) for name in BACK_ENDS for tag, env in BAD_TAGS.items()]
    nobody = [dataclasses.replace(image(name, (UNKNOWN_USER_TAG,), _BAD_CREATED), user="app") for name in BACK_ENDS]
    return [*good, *bad, *nobody]


def front_end_images(server: Layer) -> list[Image]:
    """Return every front end at every tag: they share the server and differ in a small layer of files."""
    settings = Layer(files_below(SAMPLES / "frontend" / "server"))
    return [
        Image(
            repository=repository,
            tags=_with_latest(tag),
            title=project,
            layers=(BASE_LAYER, server, settings, site_layer(project, tag)),
            entrypoint=(f"/{nginx.PROGRAM}", "-e", "stderr", "-g", "daemon off;"),
            created=created_at(tag),
            ports=(PORT,),
            stop_signal="SIGQUIT",
        )
        for repository, project in FRONT_ENDS.items()
        for tag in TAGS
    ]


def site_layer(project: str, tag: str) -> Layer:
    """Return a front end's files: the page, and a script and a style sheet with their content's hash in the name.

    Their modification time is the tag's: nginx makes its ETag of time and size, and with one time for all tags
    a browser would be told that the old page, of the same length, is still the current one.
    """
    hue = int(hashlib.sha256(f"{project}@{tag}".encode()).hexdigest()[:4], 16) % 360
    values = {"project": project, "tag": tag, "hue": str(hue)}
    script = _render("app.js", values)
    stylesheet = _render("app.css", values)
    names = {"script": hashed_name("app.js", script), "stylesheet": hashed_name("app.css", stylesheet)}
    html = "/usr/share/nginx/html"
    return Layer(
        (
            Entry(f"{html}/index.html", _render("index.html", {**values, **names})),
            Entry(f"{html}/assets/{names['script']}", script),
            Entry(f"{html}/assets/{names['stylesheet']}", stylesheet),
        ),
        modified=int(created_at(tag).timestamp()),
    )


def hashed_name(name: str, content: bytes) -> str:
    """Return a file's name with 8 digits of its content's hash before the suffix."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:8]}{dot}{suffix}"


def created_at(tag: str) -> datetime:
    """Return the time that a tag such as `2022-07-15-17-01` names."""
    return datetime.strptime(tag, "%Y-%m-%d-%H-%M").replace(tzinfo=UTC)


def ensure_layout(kind: str, images: Sequence[Image], progress: Progress) -> Path:
    """Return the OCI image layout that holds the images, made when the cache lacks it.

    Args:
        kind: first part of its name in the cache.
        images: what it holds.
        progress: told when it is made.

    Raises:
        SetupError: it could not be made.
    """
    builder = build(find("imagebuild"), progress)
    identities = {layer: layer.identity() for image in images for layer in image.layers}
    plan = _plan(images, identities)
    key = hashlib.sha256(f"{builder.name}\0{plan}".encode()).hexdigest()[:12]
    folder = cache_folder() / "images"
    target = folder / f"{kind}-{key}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{kind}.lock", f"wait for another build of the {kind} images", progress):
        if not target.is_dir():
            with progress.step(f"build the {kind} images"):
                _write_layout(builder / "imagebuild", plan, identities, target)
    return target


def push_layout(kind: str, layout: Path, endpoint: str, progress: Progress) -> PushCount:
    """Push every image of a layout that the registry lacks; see `push_system`.

    Raises:
        SetupError: the registry can't be reached or refuses.
    """
    builder = build(find("imagebuild"), progress) / "imagebuild"
    with progress.step(f"push the {kind} images"):
        done = commands.attempt([str(builder), "push", str(layout), endpoint], timeout=_PUSH_TIMEOUT_SECONDS)
        if done.returncode != 0:
            reason = (done.stderr.strip() or "no reason given").splitlines()[-1].removeprefix("imagebuild: ")
            raise SetupError(f"could not push the {kind} images to {endpoint}: {reason}")
    return PushCount(**json.loads(done.stdout))


def _plan(images: Sequence[Image], identities: dict[Layer, str]) -> str:
    """Return the plan for `imagebuild`, in which a layer's file is named by its identity."""
    planned = [image.planned([f"{identities[layer]}.tar" for layer in image.layers]) for image in images]
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return json.dumps({"architecture": architecture, "images": planned}, indent=1, sort_keys=True)


def _write_layout(imagebuild: Path, plan: str, identities: dict[Layer, str], target: Path) -> None:
    with replacing_folder(target) as unfinished, tempfile.TemporaryDirectory(dir=unfinished) as work:
        for layer, identity in identities.items():
            layer.write(Path(work) / f"{identity}.tar")
        plan_file = Path(work) / "plan.json"
        plan_file.write_text(plan)
        commands.run([str(imagebuild), "build", str(plan_file), str(unfinished)], timeout=_PUSH_TIMEOUT_SECONDS)


def _program_layer(program: Path) -> Layer:
    return Layer((Entry(f"/{program.name}", program, 0o755),))


def _with_latest(tag: str) -> tuple[str, ...]:
    return (tag, "latest") if tag == TAGS[-1] else (tag,)


def _render(name: str, values: dict[str, str]) -> bytes:
    template = (SAMPLES / "frontend" / "site" / name).read_text()
    return string.Template(template).substitute(values).encode()
