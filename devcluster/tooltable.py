"""The table of programs that are built from pinned Go modules, and of what they need to run. Data only.

Every row is a folder below `devcluster/` with a `go.mod` and a `go.sum`, which pin each module of the build.
Raising a version: change it in the row and in `go.mod`, run `go mod tidy` in that folder, then `make align`, and
run the unit tests (they compare both).
"""

from dataclasses import dataclass, field

KUBERNETES = "v1.37.2"
PULUMI = "v3.259.0"
KUBERNETES_PROVIDER = "v2.0.0"
COREDNS = "v1.15.0"
TRAEFIK = "v3.7.10"
LOCAL_PATH = "v0.0.30"
HELM = "v4.3.1"
# Version 1.10.2 needs a newer Go than the rest.
ARGO_ROLLOUTS = "v1.10.1"
# From 1.27 on the module has another path.
GITEA = "v1.26.0"

SOPS = "v3.13.3"
AGE = "v1.3.1"
VERSITYGW = "v1.8.0"

_COMPONENT_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-X {_COMPONENT_VERSION}.gitVersion={KUBERNETES}",
    f"-X {_COMPONENT_VERSION}.gitMajor=1",
    f"-X {_COMPONENT_VERSION}.gitMinor={KUBERNETES.split('.')[1]}",
    f"-X {_COMPONENT_VERSION}.gitCommit=goproxy",
    f"-X {_COMPONENT_VERSION}.gitTreeState=clean",
    f"-X {_COMPONENT_VERSION}.buildDate=1970-01-01T00:00:00Z",
    f"-X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}",
)

_ARGO_MODULE = "github.com/argoproj/argo-rollouts"
_ARGO_FLAGS = (f"-X {_ARGO_MODULE}/utils/version.version={ARGO_ROLLOUTS}",)
ARGO_DEFINITIONS = (
    "rollout-crd.yaml",
    "experiment-crd.yaml",
    "analysis-run-crd.yaml",
    "analysis-template-crd.yaml",
    "cluster-analysis-template-crd.yaml",
)
"""Files beside the built `rollouts-controller`: the kinds of objects that it needs."""


@dataclass(frozen=True)
class ModuleFile:
    """A file, or a folder, that a module ships and that belongs beside the built program.

    Attributes:
        module: path of the module, required by the tool's own `go.mod`.
        path: where it is inside the module.
    """

    module: str
    path: str


@dataclass(frozen=True)
class Edit:
    """Text of a module's file that becomes another.

    Attributes:
        path: of the file, inside the module.
        old: what stands there, exactly once.
        new: what is put in its place.
    """

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class PatchedModule:
    """A module that is replaced by a changed copy of itself, made anew for each build.

    Attributes:
        module: path of the module to copy, required by the tool's own `go.mod`.
        folder: where the copy goes, relative to the tool's folder; `go.mod` has `replace <module> => ./<folder>`.
        overlay: (file of the tool's folder, path inside the copy that it replaces).
        edits: made in the copy, after that.
    """

    module: str
    folder: str
    overlay: tuple[tuple[str, str], ...] = ()
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class SystemProgram:
    """A program that comes with the operating system.

    Attributes:
        path: an absolute path, or a name that is looked for on PATH and in the `sbin` folders.
        package: the Debian package that holds it.
    """

    path: str
    package: str


@dataclass(frozen=True)
class Tool:
    """One program built by `go build`.

    Attributes:
        name: of the program, and of its folder unless `folder` says otherwise.
        package: what `go build` is given: an import path, or `.` for a main package in the folder itself.
        folder: the Go module, relative to `devcluster/`; `tools/<name>` when empty.
        module: path of the module that the tool is about; empty when all its code is in the folder.
        version: of `module`.
        link_flags: given to the linker, besides `-s -w`.
        aliases: further names under which the program is called.
        files: shipped files that go beside it.
        patched: a dependency that is changed before the build.
        needs: programs of the operating system without which it does not work.
        tags: build tags.
        cgo: whether it has parts in C, so that the build needs a C compiler.
        shares: whether its modules have the versions of the other tools that share, so that what they have in
            common is compiled once.
        own_versions: modules that are left out of that, because its code needs another version.
    """

    name: str
    package: str
    folder: str = ""
    module: str = ""
    version: str = ""
    link_flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    files: tuple[ModuleFile, ...] = ()
    patched: PatchedModule | None = None
    needs: tuple[SystemProgram, ...] = ()
    # Not in `repr`, which names a build's folder: the tools without them keep theirs.
    tags: tuple[str, ...] = field(default=(), repr=False)
    cgo: bool = field(default=False, repr=False)
    shares: bool = field(default=False, repr=False)
    own_versions: tuple[str, ...] = field(default=(), repr=False)


NODE_PROGRAMS = (
    SystemProgram("containerd", "containerd"),
    SystemProgram("runc", "runc"),
    SystemProgram("/usr/lib/cni/bridge", "containernetworking-plugins"),
    SystemProgram("iptables", "iptables"),
    SystemProgram("conntrack", "conntrack"),
    SystemProgram("ip", "iproute2"),
    SystemProgram("sysctl", "procps"),
    SystemProgram("nsenter", "util-linux"),
    SystemProgram("unshare", "util-linux"),
    SystemProgram("mount", "mount"),
)

TOOLS = (
    Tool(
        "pulumi",
        package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        module="github.com/pulumi/pulumi/pkg/v3",
        version=PULUMI,
        link_flags=(f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={PULUMI}",),
        shares=True,
    ),
    # The last language host that was published inside a Go module; it serves current SDKs and engines.
    Tool(
        "pulumi-language-python",
        package="github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
        module="github.com/pulumi/pulumi/sdk/v3",
        version="v3.79.0",
        files=(
            ModuleFile(
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
            ),
        ),
    ),
    # The only provider release that is a tagged Go module; the stock 4.x plugin is a download.
    Tool(
        "pulumi-resource-kubernetes",
        package=".",
        module="github.com/pulumi/pulumi-kubernetes/provider/v2",
        version=KUBERNETES_PROVIDER,
        # What 4.x asks of the API server at most (github.com/pulumi/pulumi-kubernetes/pull/2381); with client-go's
        # own 5 a second, a refresh of the eight projects waits for half a minute.
        patched=PatchedModule(
            "k8s.io/client-go",
            folder="client-go",
            edits=(
                Edit("rest/config.go", "DefaultQPS   float32 = 5.0", "DefaultQPS   float32 = 50.0"),
                Edit("rest/config.go", "DefaultBurst int     = 10", "DefaultBurst int     = 120"),
            ),
        ),
    ),
    Tool(
        "hyperkube",
        package=".",
        module="k8s.io/kubernetes",
        version=KUBERNETES,
        link_flags=_KUBERNETES_FLAGS,
        aliases=("kubectl",),
        needs=NODE_PROGRAMS,
        shares=True,
    ),
    Tool("registry", package=".", module="github.com/distribution/distribution/v3", version="v3.1.2", shares=True),
    Tool("coredns", package=".", module="github.com/coredns/coredns", version=COREDNS, shares=True),
    Tool(
        "traefik",
        package="github.com/traefik/traefik/v3/cmd/traefik",
        module="github.com/traefik/traefik/v3",
        version=TRAEFIK,
        link_flags=(f"-X github.com/traefik/traefik/v3/pkg/version.Version={TRAEFIK[1:]}",),
        # The dev cluster asks no public CA for certificates: some 180 cloud SDKs need not be compiled.
        patched=PatchedModule(
            "github.com/go-acme/lego/v5",
            folder="lego",
            overlay=(("overlay/dns_providers.go", "providers/dns/zz_gen_dns_providers.go"),),
        ),
        shares=True,
        # Written for their 0.20; 0.21 has other names.
        own_versions=(
            "go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc",
            "go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp",
            "go.opentelemetry.io/otel/log",
            "go.opentelemetry.io/otel/sdk/log",
        ),
    ),
    # Volumes of the class `local-path`: a folder on the node where the first pod was put.
    Tool(
        "local-path-provisioner",
        package="github.com/rancher/local-path-provisioner",
        module="github.com/rancher/local-path-provisioner",
        version=LOCAL_PATH,
        link_flags=(f"-X main.VERSION={LOCAL_PATH}",),
        shares=True,
    ),
    Tool(
        "vegeta",
        package="github.com/tsenart/vegeta/v12",
        module="github.com/tsenart/vegeta/v12",
        version="v12.13.0",
        shares=True,
    ),
    Tool("imagebuild", package=".", shares=True),
    # What releases are compared with: built by `make bench-release` alone.
    Tool(
        "helm",
        package="helm.sh/helm/v4/cmd/helm",
        module="helm.sh/helm/v4",
        version=HELM,
        link_flags=(f"-X helm.sh/helm/v4/internal/version.version={HELM}",),
    ),
    Tool(
        "rollouts-controller",
        package=f"{_ARGO_MODULE}/cmd/rollouts-controller",
        module=_ARGO_MODULE,
        version=ARGO_ROLLOUTS,
        link_flags=_ARGO_FLAGS,
        files=tuple(ModuleFile(_ARGO_MODULE, f"manifests/crds/{name}") for name in ARGO_DEFINITIONS),
    ),
    Tool(
        "kubectl-argo-rollouts",
        package=f"{_ARGO_MODULE}/cmd/kubectl-argo-rollouts",
        folder="tools/rollouts-controller",
        module=_ARGO_MODULE,
        version=ARGO_ROLLOUTS,
        link_flags=_ARGO_FLAGS,
    ),
    # What encrypts files of the config repository, and an S3 server for the state: for tests, and to try it.
    Tool("sops", package="github.com/getsops/sops/v3/cmd/sops", module="github.com/getsops/sops/v3", version=SOPS),
    Tool(
        "age-keygen",
        package="filippo.io/age/cmd/age-keygen",
        folder="tools/sops",
        module="filippo.io/age",
        version=AGE,
    ),
    Tool(
        "versitygw",
        package="github.com/versity/versitygw/cmd/versitygw",
        module="github.com/versity/versitygw",
        version=VERSITYGW,
    ),
    # Where the demo's pushes go: built by `make demo` and by the tests of the pipeline alone.
    Tool(
        "gitea",
        package="code.gitea.io/gitea",
        module="code.gitea.io/gitea",
        version=GITEA,
        link_flags=(f"-X main.Version={GITEA[1:]}",),
        files=tuple(ModuleFile("code.gitea.io/gitea", folder) for folder in ("options", "templates")),
        needs=(SystemProgram("git", "git"), SystemProgram("setpriv", "util-linux")),
        tags=("sqlite", "sqlite_unlock_notify", "timetzdata"),
        cgo=True,
    ),
    Tool("pause", package="."),
    Tool("backend", package=".", folder="samples/backend"),
)
