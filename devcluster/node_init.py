"""The first process of a machine: mounts, then starts and supervises its components. Standard library only.

It is run as a file, as PID 1 of new mount, PID, network and UTS namespaces, with the path of its plan (see
`node.boot_plan`) as the one argument. It tells its parent on standard output that it is there, and waits on
standard input for "go", which comes when the network is plugged in. If the parent dies before, standard input
ends and so does the machine: no half-made machine stays behind.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

RESTART_SECONDS = 0.5
POLL_SECONDS = 0.05
API_POLL_SECONDS = 0.2
IDLE_SECONDS = 5.0
LOG_DIRECTORY = Path("/run/log")
ENDED_MARK = "[supervisor]"


class Component:
    """A program that is kept running."""

    def __init__(self, machine: str, plan: dict[str, Any]) -> None:
        self.name: str = plan["name"]
        self.command: list[str] = plan["command"]
        self.wait: list[dict[str, str]] = plan["wait"]
        self.environment: dict[str, str] = {**os.environ, **plan["environment"]}
        self.log = LOG_DIRECTORY / f"{machine}-{self.name}.log"
        self.pid = 0
        self.not_before = 0.0

    def start(self) -> None:
        """Start the program in a process group of its own, its output in its log file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        # This process blocks the signals that it waits for; a child must not inherit that.
        try:
            self.pid = os.posix_spawn(
                self.command[0],
                self.command,
                self.environment,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
            )
        except OSError as error:
            self.ended(f"cannot be started: {error}")

    def ended(self, reason: str) -> None:
        """Note that the program has ended; it is started again after half a second."""
        self.pid = 0
        self.not_before = time.monotonic() + RESTART_SECONDS
        with self.log.open("a") as stream:
            stream.write(f"{ENDED_MARK} {self.name} {reason}\n")


def main() -> int:
    """Run the machine until it is told to stop."""
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    print("here", flush=True)
    if sys.stdin.readline() != "go\n":
        return 1
    socket.sethostname(plan["hostname"])
    prepare_mounts(plan["binds"])
    set_sysctls(plan["sysctls"])
    Path("/run/node/booted").touch()
    supervise([Component(plan["hostname"], component) for component in plan["components"]])
    return 0


def prepare_mounts(binds: dict[str, str]) -> None:
    """Make fresh `/run` and `/var`, with the machine's disk, logs, keys and programs bound below `/run`.

    The sources are opened before anything is covered, so that it does not matter where they lie.
    """
    # Python loads this codec at the first look-up of an address, when its directory may be covered.
    "".encode("idna")
    descriptors = {target: os.open(source, os.O_PATH) for target, source in binds.items()}
    for directory in ("/run", "/var"):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", directory)
    for target, descriptor in descriptors.items():
        source = f"/proc/self/fd/{descriptor}"
        if Path(source).is_dir():
            Path(target).mkdir(parents=True)
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).touch()
        mount("--bind", "--no-canonicalize", source, target, descriptors=(descriptor,))
        os.close(descriptor)
    for directory in ("/run/netns", "/run/containerd", "/run/lock", "/var/lib", "/var/log/containers", "/var/cache"):
        Path(directory).mkdir(parents=True, exist_ok=True)
    Path("/var/run").symlink_to("/run")
    # Mounts of pods (volumes) are seen by the node and the other way round; the host is not part of it.
    mount("--make-rshared", "/")


def mount(*arguments: str, descriptors: tuple[int, ...] = ()) -> None:
    """Call the program mount."""
    subprocess.run(["mount", *arguments], check=True, pass_fds=descriptors)


def set_sysctls(settings: dict[str, str]) -> None:
    """Set kernel settings of this network namespace; one that the kernel does not know is skipped."""
    for name, value in settings.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", *name.split(".")).write_text(value)


def supervise(components: list[Component]) -> None:
    """Start each component when what it waits for is there; start it again when it ends; until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    while True:
        reap({component.pid: component for component in components if component.pid})
        pending = [component for component in components if not component.pid]
        for component in pending:
            if time.monotonic() >= component.not_before and is_due(component):
                component.start()
        timeout = POLL_SECONDS if pending else IDLE_SECONDS
        received = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, timeout)
        if received is not None and received.si_signo == signal.SIGTERM:
            return


def reap(running: dict[int, Component]) -> None:
    """Collect every ended child; orphans of pods end up here too."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in running:
                running[pid].ended(f"ended with exit code {os.waitstatus_to_exitcode(status)}")


def is_due(component: Component) -> bool:
    """Tell whether everything that the component waits for is there; waits once only per boot."""
    while component.wait:
        condition = component.wait[0]
        if "socket" in condition and not Path(condition["socket"]).is_socket():
            return False
        if "https" in condition and not answers(condition["https"], condition["ca"]):
            component.not_before = time.monotonic() + API_POLL_SECONDS
            return False
        component.wait.pop(0)
    return True


def answers(url: str, authority: str) -> bool:
    """Tell whether the address answers 200."""
    context = ssl.create_default_context(cafile=authority)
    try:
        with urllib.request.urlopen(url, timeout=1.0, context=context) as response:  # noqa: S310 - own plan
            return response.status == 200  # noqa: PLR2004 - HTTP's "OK"
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    sys.exit(main())
