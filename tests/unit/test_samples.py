"""The sample applications themselves, as real processes on the loopback address."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devcluster import images, nginx, toolchain
from devcluster.progress import Progress


@dataclass
class Running:
    """A sample that listens."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list[str])

    def ask(self, path: str, method: str = "GET", timeout: float = 10.0) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(20)
        assert self.process.stdout
        self.lines += self.process.stdout.read().splitlines()
        return code


@pytest.fixture(scope="module")
def program() -> Path:
    """The back end, built by the real compiler; it needs the standard library only."""
    return toolchain.build(toolchain.find("backend"), Progress(quiet=True)) / "backend"


@contextlib.contextmanager
def _started(program: Path, **environment: str) -> Generator[Running]:
    command = [str(program)]
    variables = {"PROJECT": "P", "TAG": "T", "POD_NAME": "p-1", "ADDRESS": "127.0.0.1:0", **environment}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            running = Running(process, int(json.loads(line)["address"].rpartition(":")[2]), [line])
            yield running
        finally:
            if process.poll() is None:
                process.kill()


def _refuses(program: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program],
        env={"PROJECT": "P", "ADDRESS": "127.0.0.1:0", **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_any_path_answers_who_it_was(program: Path) -> None:
    with _started(program, NODE_NAME="n1") as running:
        status, said = running.ask("/some/path?x=1")
    assert (status, said) == (200, {"project": "P", "tag": "T", "pod": "p-1", "node": "n1", "path": "/some/path"})


def test_configuration_is_told_by_its_hash(program: Path, tmp_path: Path) -> None:
    (tmp_path / "app.config").write_text("hello\n")
    with _started(program, CONFIG_FILE=str(tmp_path / "app.config")) as running:
        assert running.ask("/")[1]["config"] == "5891b5b522d5"


def test_starts_are_counted_where_the_data_is(program: Path, tmp_path: Path) -> None:
    for starts in (1, 2):
        with _started(program, DATA_FOLDER=str(tmp_path)) as running:
            assert running.ask("/")[1]["starts"] == starts


def test_delay_is_kept_and_bounded(program: Path) -> None:
    with _started(program) as running:
        started = time.monotonic()
        assert running.ask("/?delay=300ms")[0] == 200
        assert time.monotonic() - started >= 0.3
        assert running.ask("/?delay=31s")[0] == 400
        assert running.ask("/?delay=soon")[0] == 400


def test_call_relays_another_service(program: Path) -> None:
    with _started(program) as running, _started(program, PROJECT="Q", CONTROL="on") as other:
        status, said = running.ask(f"/call?url=http://127.0.0.1:{other.port}/inner")
        assert (status, said["called"]["status"], said["called"]["body"]["project"]) == (200, 200, "Q")
        other.ask("/control/unready", "POST")
        status, said = running.ask(f"/call?url=http://127.0.0.1:{other.port}/healthz/ready")
        assert (status, said["called"]["status"]) == (502, 503)
        other.end()
        status, said = running.ask(f"/call?url=http://127.0.0.1:{other.port}/inner")
        assert status == 502
        assert "connection refused" in said["error"]
        assert running.ask("/call?url=file:///etc/passwd")[0] == 400


def test_readiness_can_be_taken_away_and_given_back(program: Path) -> None:
    with _started(program, CONTROL="on") as running:
        statuses = [running.ask("/healthz/ready")[0]]
        for action in ("unready", "ready"):
            running.ask(f"/control/{action}", "POST")
            statuses.append(running.ask("/healthz/ready")[0])
        assert statuses == [200, 503, 200]
        assert running.ask("/healthz/live")[0] == running.ask("/healthz/startup")[0] == 200


def test_a_hanging_pod_answers_nothing(program: Path) -> None:
    with _started(program, CONTROL="on") as running:
        running.ask("/control/hang", "POST")
        for path in ("/healthz/live", "/healthz/ready", "/"):
            with pytest.raises(TimeoutError):
                running.ask(path, timeout=0.5)


def test_a_pod_fills_its_temporary_directory(program: Path, tmp_path: Path) -> None:
    with _started(program, CONTROL="on", TMPDIR=str(tmp_path)) as running:
        assert running.ask("/control/fill", "POST", timeout=30)[0] == 200
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 96 << 20


def test_exit_ends_the_process_after_its_answer(program: Path) -> None:
    with _started(program, CONTROL="on") as running:
        assert running.ask("/control/exit", "POST")[0] == 200
        assert running.wait() == 1


def test_control_is_off_unless_asked_for_and_takes_only_post(program: Path) -> None:
    with _started(program) as running:
        assert running.ask("/control/exit", "POST")[0] == 403
    with _started(program, CONTROL="on") as running:
        assert running.ask("/control/exit")[0] == 405
        assert running.ask("/control/nonsense", "POST")[0] == 404
        assert running.process.poll() is None


def _ask_while_ending(running: Running, path: str) -> list[int]:
    """Ask, send SIGTERM while the answer is awaited, and return its status; nothing when it was lost."""
    statuses: list[int] = []

    def ask() -> None:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            statuses.append(running.ask(path)[0])

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    asking.join(20)
    return statuses


def test_sigterm_finishes_what_is_in_flight_and_accepts_no_more(program: Path) -> None:
    with _started(program) as running:
        with ThreadPoolExecutor(1) as pool:
            refusal = pool.submit(_wait_for, lambda: _refused(running) and running.process.poll() is None)
            assert _ask_while_ending(running, "/?delay=1s") == [200]
        refusal.result()
        assert running.wait() == 0
    assert [json.loads(line)["message"] for line in running.lines] == ["started", "stopped"]


def test_drain_ends_at_its_limit(program: Path) -> None:
    with _started(program, DRAIN_SECONDS="1") as running:
        started = time.monotonic()
        assert _ask_while_ending(running, "/?delay=10s") == []
        assert running.wait() == 0
        assert time.monotonic() - started < 5
    assert "still in flight" in running.lines[-1]


def test_drain_off_loses_what_is_in_flight(program: Path) -> None:
    with _started(program, DRAIN="off") as running:
        assert _ask_while_ending(running, "/?delay=1s") == []
        assert running.wait() == 0


def test_bad_releases_fail_each_in_its_way(program: Path) -> None:
    crash = _refuses(program, CRASH_AT_START="1")
    assert crash.returncode == 1
    assert 'cannot open database "orders"' in crash.stderr
    assert "P.Startup.Configure()" in crash.stderr
    with _started(program, NEVER_READY="1") as running:
        assert running.ask("/healthz/ready")[0] == 503
        assert running.ask("/healthz/live")[0] == 200
    with _started(program, FAIL_REQUESTS="1") as running:
        assert running.ask("/healthz/ready")[0] == 200
        assert running.ask("/any")[0] == 500


@pytest.mark.parametrize(
    ("fails", "code", "last"), [("0", 0, "the database is migrated"), ("1", 1, "duplicate column")]
)
def test_a_migration_tells_what_it_does_and_ends(program: Path, fails: str, code: int, last: str) -> None:
    variables = {"PROJECT": "P", "TAG": "T", "FAIL_MIGRATION": fails}
    finished = subprocess.run(
        [program, "migrate"], env=variables, capture_output=True, text=True, timeout=20, check=False
    )
    lines = [json.loads(line)["message"] for line in finished.stdout.splitlines()]
    assert (finished.returncode, len(lines)) == (code, 2)
    assert lines[1].startswith(last)


def test_slow_start_listens_only_after_its_delay(program: Path) -> None:
    started = time.monotonic()
    with _started(program, START_DELAY="700ms") as running:
        assert time.monotonic() - started >= 0.7
        assert running.ask("/healthz/startup")[0] == 200


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CONFIG_FILE", "/no/such/file", "CONFIG_FILE: open /no/such/file: no such file or directory"),
        ("START_DELAY", "soon", "START_DELAY: time: invalid duration"),
        ("DATA_FOLDER", "/no/such/folder", "DATA_FOLDER: open /no/such/folder/starts: no such file or directory"),
        ("DRAIN_SECONDS", "-1", "DRAIN_SECONDS: "),
        ("ADDRESS", "127.0.0.1:-1", "invalid port"),
    ],
)
def test_unusable_environment_ends_the_start_with_a_message(
    program: Path, variable: str, value: str, message: str
) -> None:
    done = _refuses(program, **{variable: value})
    assert done.returncode == 1
    assert message in json.loads(done.stdout)["message"]


@dataclass(frozen=True)
class Server:
    """The real nginx with the image's own settings; only paths and the port are others."""

    port: int

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            text = content.decode() if answer.headers.get("Content-Encoding") is None else "compressed"
            return answer.status, dict(answer.headers.items()), text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Run nginx out of its unpacked packages, as the image's entrypoint does."""
    unpacked = nginx.ensure_root(Progress(quiet=True))
    folder = tmp_path_factory.mktemp("front")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for entry in images.site_layer("packet", images.TAGS[-1]).entries:
        path = folder / entry.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.read())
    settings = _moved(folder, unpacked, port)
    loader = next(path for path in unpacked.rglob("ld-linux-*") if path.is_file())
    libraries = next(path.parent for path in unpacked.rglob("libc.so.6"))
    command = [str(loader), "--library-path", str(libraries), str(unpacked / nginx.PROGRAM)]
    # Started by root, it would give its work to a user who may not enter the test's folder.
    extra = "daemon off;" + (" user root root;" if os.geteuid() == 0 else "")
    command += ["-e", "stderr", "-c", str(settings), "-p", str(folder), "-g", extra]
    with subprocess.Popen(command) as process:
        try:
            _wait_for(lambda: not _closed(port) or process.poll() is not None)
            assert process.poll() is None
            yield Server(port)
        finally:
            process.send_signal(signal.SIGQUIT)
            assert process.wait(20) == 0


def _moved(folder: Path, unpacked: Path, port: int) -> Path:
    """Write the image's settings with this test's paths, and return the main file."""
    shipped = images.SAMPLES / "frontend" / "server" / "etc" / "nginx"
    replaced = {
        "/tmp/": f"{folder}/tmp/",
        "/etc/nginx/mime.types": str(unpacked / "etc/nginx/mime.types"),
        "/etc/nginx/conf.d": str(folder / "conf.d"),
        "/usr/share/nginx/html": str(folder / "usr/share/nginx/html"),
        "listen 8080": f"listen 127.0.0.1:{port}",
    }
    for name in ("nginx.conf", "conf.d/default.conf"):
        text = (shipped / name).read_text()
        for old, new in replaced.items():
            text = text.replace(old, new)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "tmp").mkdir()
    return folder / "nginx.conf"


def test_page_is_asked_for_anew_each_time(server: Server) -> None:
    for path in ("/", "/index.html", "/packet/some/view"):
        status, headers, text = server.get(path)
        assert (status, headers["Cache-Control"]) == (200, "no-cache")
        assert images.TAGS[-1] in text


def test_assets_are_kept_for_ever_below_any_path(server: Server) -> None:
    page = server.get("/")[2]
    names = re.findall(r'"assets/([^"]+)"', page)
    assert len(names) == 2
    for name in names:
        for path in (f"/assets/{name}", f"/packet/assets/{name}"):
            status, headers, text = server.get(path)
            assert (status, "immutable" in headers["Cache-Control"]) == (200, True)
            assert images.TAGS[-1] in text


def test_missing_asset_is_no_page(server: Server) -> None:
    assert server.get("/assets/app.00000000.js")[0] == 404


def test_page_is_compressed_for_who_asks(server: Server) -> None:
    assert server.get("/", **{"Accept-Encoding": "gzip"})[1]["Content-Encoding"] == "gzip"


def test_page_of_another_release_is_no_match_for_the_browsers_copy(server: Server) -> None:
    tag = server.get("/")[1]["ETag"]
    assert server.get("/", **{"If-None-Match": tag})[0] == 304
    older = images.site_layer("packet", images.TAGS[0]).modified
    assert f"{older:x}" not in tag


def test_health_has_its_own_answer(server: Server) -> None:
    for path in ("/healthz", "/healthz/ready"):
        assert server.get(path)[::2] == (200, "ok\n")


def _closed(port: int) -> bool:
    try:
        Server(port).get("/healthz")
    except ConnectionError:
        return True
    return False


def _refused(running: Running) -> bool:
    try:
        running.ask("/")
    except ConnectionRefusedError:
        return True
    except (ConnectionError, http.client.HTTPException):
        return False
    return False


def _wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
