"""A real Gitea for the demo and the tests of the pipeline: API and Git over HTTP, as a system user of few rights.

It sees nothing but its own folder and its program: both are mounted where that user may go, in a mount namespace of its
own, which ends with it. Its web pages are not served, as the Go module lacks their assets.
"""

import configparser
import io
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2

from devcluster import commands, debian, machine, pki, processes
from devcluster.failure import SetupError
from devcluster.progress import Progress
from devcluster.toolchain import build, find

USER, GROUP = "nobody", "nogroup"
ADMINISTRATOR = "operator"
PORT = 3000
START_SECONDS = 60.0
COMMAND_SECONDS = 60.0
POLL_SECONDS = 0.2
# A small file system of its own hides what the machine has below /mnt, and only from Gitea.
_MOUNTS, _DATA, _TOOL = "/mnt", "/mnt/data", "/mnt/tool"
_ENTER = f"""
mount -t tmpfs -o size=64k,mode=755 none {_MOUNTS} && mkdir {_DATA} {_TOOL} || exit 70
mount --bind "$0" {_DATA} && mount --bind "$1" {_TOOL} && shift || exit 70
exec setpriv --reuid={USER} --regid={GROUP} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""
_NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child")


@dataclass(frozen=True)
class Gitea:
    """One Gitea.

    Args:
        folder: Everything it keeps: database, repositories, log. Made when it is not there.
        address: Where it listens, and the only one that its webhooks may lead to.
        port: Where it listens.
    """

    folder: Path
    address: str
    port: int = PORT

    @property
    def url(self) -> str:
        """Root of the server."""
        return f"http://{self.address}:{self.port}"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "gitea.log"

    @property
    def token_file(self) -> Path:
        """The administrator's access token."""
        return self.folder / "token"

    def start(self, progress: Progress) -> None:
        """Start it, and make its administrator the first time; one that runs already is left alone.

        Raises:
            SetupError: It does not come up, with the end of its log in the details; what it needs can't be had; or
                another server answers there.
        """
        tool = find("gitea")
        debian.ensure_installed(tool.needs, progress)
        program = build(tool, progress)
        if any(path.resolve().is_relative_to(_MOUNTS) for path in (self.folder, program)):
            raise SetupError(f"Gitea can't run from a folder below {_MOUNTS}: use another one")
        if self.answers():
            if not processes.marked(self.folder):
                raise SetupError(f"another server answers on {self.url}: end it, or use another address or port")
            return
        self.stop()
        self._prepare()
        with progress.step("Gitea"):
            if not self.token_file.exists():
                self._command(program, "migrate")
                self._make_administrator(program)
            with self.log.open("ab") as stream:
                subprocess.Popen(
                    self._line(program, "web"),
                    env=self._variables(),
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    start_new_session=True,
                )
            self._wait()

    def stop(self) -> bool:
        """End it, and tell whether it ran."""
        return processes.end_all(self.folder) > 0

    def answers(self) -> bool:
        """Tell whether it serves."""
        try:
            with httpx2.Client(trust_env=False, timeout=2) as client:
                return client.get(f"{self.url}/api/healthz").is_success
        except httpx2.HTTPError:
            return False

    def _prepare(self) -> None:
        """Make its folder and its settings."""
        data = self.folder / "data"
        if data.exists() and not self.token_file.exists():
            # The token is the last thing that a first start writes: this one was cut off, and its user may be there.
            shutil.rmtree(data)
        data.mkdir(parents=True, exist_ok=True)
        configuration = data / "app.ini"
        if not configuration.exists():
            configuration.write_text(self._configuration(), encoding="utf-8")
        for path in (data, configuration):
            shutil.chown(path, USER, GROUP)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def _make_administrator(self, program: Path) -> None:
        mail = f"{ADMINISTRATOR}@example.com"
        made = ("--username", ADMINISTRATOR, "--email", mail, "--admin", "--random-password")
        self._command(program, "admin", "user", "create", *made, "--must-change-password=false")
        named = ("--username", ADMINISTRATOR, "--token-name", "demo", "--scopes", "all", "--raw")
        token = self._command(program, "admin", "user", "generate-access-token", *named)
        pki.write_private(self.token_file, token.split()[-1].encode())

    def _command(self, program: Path, *words: str) -> str:
        return commands.run(self._line(program, *words), timeout=COMMAND_SECONDS, env=self._variables())

    def _line(self, program: Path, *words: str) -> list[str]:
        data = self.folder / "data"
        inner = [f"{_TOOL}/gitea", f"--config={_DATA}/app.ini", *words]
        return [*_NAMESPACES, "sh", "-c", _ENTER, str(data), str(program), *inner]

    def _variables(self) -> dict[str, str]:
        return {
            "PATH": machine.HOST_PATH,
            "HOME": _DATA,
            "USER": USER,
            "LANG": "C.UTF-8",
            processes.MARK: str(self.folder),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if time.monotonic() > deadline or not processes.marked(self.folder):
                self.stop()
                raise SetupError(f"Gitea does not come up: look at {self.log}", machine.tail(self.log))
            time.sleep(POLL_SECONDS)

    def _configuration(self) -> str:
        """Return its settings: https://docs.gitea.com/administration/config-cheat-sheet."""
        settings = configparser.ConfigParser(interpolation=None)
        settings.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] - the documented way to keep case
        settings.read_dict(
            {
                "server": {
                    "HTTP_ADDR": self.address,
                    "HTTP_PORT": str(self.port),
                    "ROOT_URL": f"{self.url}/",
                    "STATIC_ROOT_PATH": _TOOL,
                    "APP_DATA_PATH": f"{_DATA}/data",
                    "OFFLINE_MODE": "true",
                    "DISABLE_SSH": "true",
                    "LFS_START_SERVER": "false",
                },
                "database": {"DB_TYPE": "sqlite3", "PATH": f"{_DATA}/gitea.db"},
                "repository": {"ROOT": f"{_DATA}/repositories", "DEFAULT_BRANCH": "main"},
                "git": {"HOME_PATH": f"{_DATA}/home"},
                "security": {
                    "INSTALL_LOCK": "true",
                    "SECRET_KEY": secrets.token_hex(32),
                    "INTERNAL_TOKEN": secrets.token_hex(32),
                },
                "oauth2": {"ENABLED": "false"},
                "service": {"DISABLE_REGISTRATION": "true", "REQUIRE_SIGNIN_VIEW": "true"},
                # By default Gitea refuses to call an internal address.
                "webhook": {"ALLOWED_HOST_LIST": f"{self.address}/32", "DELIVER_TIMEOUT": "10"},
                "log": {"MODE": "console", "LEVEL": "Warn"},
                "indexer": {"ISSUE_INDEXER_TYPE": "db"},
                "queue": {"TYPE": "channel"},
                "actions": {"ENABLED": "false"},
                "packages": {"ENABLED": "false"},
                "cron.update_checker": {"ENABLED": "false"},
            }
        )
        text = io.StringIO()
        text.write(f"APP_NAME = Gitea of the demo\nRUN_USER = {USER}\nRUN_MODE = prod\nWORK_PATH = {_DATA}\n\n")
        settings.write(text)
        return text.getvalue()
