"""Load on the ingress while something is released: vegeta in the background, and what it saw, answer by answer."""

import base64
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.cluster.embedded import Cluster

LONGEST_SECONDS = 900
"""After this long the load ends by itself, whoever forgot to stop it."""
REQUEST_SECONDS = 30
"""An answer that a busy machine gives late is not a lost one."""
MOST_WORKERS = 100
STOP_SECONDS = 30.0
PAGE_TAG = re.compile(r'<meta name="tag" content="([^"]+)">')
"""How a sample front end tells its tag."""


@dataclass(frozen=True)
class Request:
    """One kind of request.

    Args:
        url: by the ingress's address.
        host: what the Host header says.
        method: POST is what no proxy ever sends a second time by itself, so it sees losses that a GET does not.
    """

    url: str
    host: str
    method: str = "GET"


@dataclass(frozen=True, order=True)
class Hit:
    """One request and what came of it.

    Args:
        time: when it was sent.
        code: HTTP status, 0 when there was no answer.
        error: why there was none.
        body: of the answer.
        seconds: until the answer was complete.
    """

    time: datetime
    code: int
    error: str
    body: str
    seconds: float

    @property
    def said(self) -> Mapping[str, Any]:
        """The JSON object of a back end's answer; empty for another body."""
        return json.loads(self.body) if self.body.startswith("{") else {}

    @property
    def tag(self) -> str:
        """The tag that answered, empty when none was told."""
        page = PAGE_TAG.search(self.body)
        return page.group(1) if page else str(self.said.get("tag", ""))


@dataclass(frozen=True)
class Results:
    """All hits, in the order in which they were sent."""

    hits: tuple[Hit, ...]

    @property
    def failed(self) -> list[Hit]:
        """Those without a 200."""
        return [hit for hit in self.hits if hit.code != 200]

    @property
    def tags(self) -> list[str]:
        """The tags that answered, each once, in the order of their first answer."""
        return list(dict.fromkeys(hit.tag for hit in self.hits if hit.code == 200))

    def summary(self) -> str:
        """Return what a failed assertion should show."""
        codes = dict(Counter(hit.code for hit in self.hits))
        lines = [f"{hit.time} {hit.code} {hit.seconds:.3f} s {hit.error or hit.body[:200]}" for hit in self.failed[:20]]
        slowest = max((hit.seconds for hit in self.hits), default=0.0)
        head = f"{len(self.hits)} requests, codes {codes}, {len(self.failed)} failed, slowest {slowest:.1f} s"
        return "\n".join([head, *lines])

    @property
    def error_seconds(self) -> float:
        """From the first request that failed to the last one."""
        times = [hit.time for hit in self.failed]
        return (max(times) - min(times)).total_seconds() if times else 0.0

    def __add__(self, other: Self) -> "Results":
        return Results(tuple(sorted((*self.hits, *other.hits))))


class Load:
    """A steady stream of requests for as long as the context lasts.

    Half of it reuses its connections and half opens one for every request.
    """

    def __init__(self, cluster: Cluster, folder: Path, requests: Sequence[Request], rate: int) -> None:
        """Prepare it; requests go only to the cluster's own network.

        Args:
            cluster: that is asked.
            folder: for the results; made when it is not there.
            requests: sent in turn.
            rate: requests per second, both halves together.
        """
        for request in requests:
            if IPv4Address(httpx2.URL(request.url).host) not in cluster.instance.network:
                raise ValueError(f"{request.url} is not on the test cluster's network {cluster.instance.network}")
        self._vegeta = str(cluster.instance.binaries / "vegeta")
        self._folder = folder
        self._targets = "\n\n".join(f"{each.method} {each.url}\nHost: {each.host}" for each in requests)
        self.rate = rate
        self._started = 0.0
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "targets").write_text(self._targets)
        self._started = time.monotonic()
        self._running = [self._attack("true"), self._attack("false")]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _attack(self, keepalive: str) -> subprocess.Popen[bytes]:
        command = [
            self._vegeta,
            "attack",
            f"-targets={self._folder / 'targets'}",
            f"-rate={max(1, self.rate // 2)}/1s",
            f"-duration={LONGEST_SECONDS}s",
            f"-timeout={REQUEST_SECONDS}s",
            f"-max-workers={MOST_WORKERS}",
            "-redirects=-1",
            # The certificates of tests are signed by nobody.
            "-insecure",
            f"-keepalive={keepalive}",
            f"-output={self._results(keepalive)}",
        ]
        return subprocess.Popen(command, start_new_session=True)

    def until(self, count: int) -> None:
        """Go on until so many requests were sent."""
        remaining = count / (self.rate // 2 * 2) - (time.monotonic() - self._started)
        if remaining > LONGEST_SECONDS:
            raise ValueError(f"{count} requests at {self.rate}/s take longer than the load may last")
        time.sleep(max(0.0, remaining) + 1)

    def results(self) -> Results:
        """Return what came of every request; call it after the context has ended."""
        return self.kept() + self.fresh()

    def kept(self) -> Results:
        """Return what came of the requests on connections that were used before."""
        return Results(tuple(self._read(self._results("true"))))

    def fresh(self) -> Results:
        """Return what came of the requests that each opened a connection."""
        return Results(tuple(self._read(self._results("false"))))

    def _results(self, keepalive: str) -> Path:
        return self._folder / f"keepalive-{keepalive}.bin"

    def _read(self, file: Path) -> list[Hit]:
        command = [self._vegeta, "encode", "-to=json", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        return [_hit(json.loads(line)) for line in told.splitlines()]


def _hit(told: Mapping[str, Any]) -> Hit:
    body = base64.b64decode(told["body"] or "").decode(errors="replace")
    return Hit(datetime.fromisoformat(told["timestamp"]), told["code"], told["error"], body, told["latency"] / 1e9)
