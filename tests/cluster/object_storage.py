"""A real S3 server (versitygw) on loopback, for tests that keep a stack's state in object storage."""

import os
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster import environment, toolchain
from devcluster.instance import Instance
from devcluster.progress import Progress

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0
ACCESS_KEY, SECRET_KEY = "team", "of-the-test"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}


@dataclass(frozen=True)
class Bucket:
    """A bucket.

    Args:
        folder: Where the server keeps what is in it.
        url: Of it, as a backend of Pulumi.
    """

    folder: Path
    url: str

    def locks(self) -> list[Path]:
        """Return the locks that are held."""
        return list(self.folder.rglob("locks/*/*/*/*.json"))


@contextmanager
def bucket(folder: Path) -> Generator[Bucket]:
    """A bucket of a server that ends with the context.

    Args:
        folder: For the server; made if it is not there.
    """
    toolchain.ensure(["versitygw"], Progress(quiet=True))
    port = _free_port()
    (folder / "state").mkdir(parents=True)
    path = os.pathsep.join([*environment.path_entries(Instance(0, ROOT)), os.environ["PATH"]])
    variables = {**os.environ, "PATH": path, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    with (folder.with_suffix(".log")).open("w") as log:
        command = ["versitygw", f"--port=127.0.0.1:{port}", "posix", "--nometa", str(folder)]
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, folder.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)
        yield Bucket(folder, f"s3://state?endpoint=http://127.0.0.1:{port}&s3ForcePathStyle=true")
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
