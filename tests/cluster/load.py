"""Load on the ingress while something is released: vegeta in the background, and what it saw, answer by answer."""

import base64
import itertools
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
STOP_SECONDS = REQUEST_SECONDS + 15.0
"""After the last request was sent; one that is never answered is given up before, and counted."""
IN_FLIGHT = "3s"
"""Longer than the kubelet takes to stop a pod after the proxy has turned away from it, even on a busy machine: so some
of these are in flight at every stop, and a pod that does not drain must lose them."""
PAGE_TAG = re.compile(r'<meta name="tag" content="([^"]+)">')
"""How a sample front end tells its tag."""


class LoadError(AssertionError):
    """A load was not there for as long as it should have been: what it saw says nothing."""


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
        url: that was asked.
    """

    time: datetime
    code: int
    error: str
    body: str
    seconds: float
    url: str

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

    @property
    def silent_seconds(self) -> float:
        """The longest time in which no answer came: unlike what failed, it also tells of requests that had to wait.

        Not how long the slowest one took: that may be due to one pod, while all others are answered.
        """
        sent = [hit.time for hit in self.hits]
        answered = [hit.time + timedelta(seconds=hit.seconds) for hit in self.hits if hit.code == 200]
        # What comes after the last request was sent comes late because no more are sent.
        moments = sorted([*sent[:1], *(each for each in answered if each <= sent[-1]), *sent[-1:]])
        return max(((after - before).total_seconds() for before, after in itertools.pairwise(moments)), default=0.0)

    def of(self, address: str) -> "Results":
        """Return those that went to an address."""
        return Results(tuple(hit for hit in self.hits if httpx2.URL(hit.url).host == address))

    def __add__(self, other: Self) -> "Results":
        return Results(tuple(sorted((*self.hits, *other.hits))))


def back_end_requests(url: str, host: str) -> list[Request]:
    """Return what is lost most easily: long ones, which are in flight when a pod leaves, and such as nobody repeats."""
    return [
        Request(url, host),
        Request(f"{url}?delay=100ms", host),
        Request(url, host, "POST"),
        Request(f"{url}?delay={IN_FLIGHT}", host, "POST"),
    ]


class Load:
    """A steady stream of requests for as long as the context lasts.

    Half of it reuses its connections and half opens one for every request.

    Raises:
        LoadError: at the end of the context, if the load ended before, or would not end.
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
        seconds = time.monotonic() - self._started
        problems = [self._ended_before(process, seconds) for process in self._running]
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        problems += [self._end(process) for process in self._running]
        told = "; ".join(dict.fromkeys(filter(None, problems)))
        # What went wrong in the context says more.
        if told and error is None:
            raise LoadError(f"{self._folder}: {told}")

    @staticmethod
    def _ended_before(process: subprocess.Popen[bytes], seconds: float) -> str:
        """Return what is wrong with a process that should still run; "" when it does."""
        if process.poll() is None:
            return ""
        if process.returncode == 0 and seconds >= LONGEST_SECONDS:
            return f"the load ended by itself after {LONGEST_SECONDS} s, but was needed for {seconds:.0f} s"
        return f"the load was over before it was stopped after {seconds:.0f} s, with exit code {process.returncode}"

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> str:
        """Wait until a process that was told to stop has ended; return what went wrong, "" when nothing did."""
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"the load did not stop within {STOP_SECONDS:.0f} s and was killed, with what it had seen"
        return f"the load ended with exit code {code}" if code else ""

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
        return Results(tuple(sorted(self._read(self._results("true")))))

    def fresh(self) -> Results:
        """Return what came of the requests that each opened a connection."""
        return Results(tuple(sorted(self._read(self._results("false")))))

    def _results(self, keepalive: str) -> Path:
        return self._folder / f"keepalive-{keepalive}.bin"

    def _read(self, file: Path) -> list[Hit]:
        command = [self._vegeta, "encode", "-to=json", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        return [_hit(json.loads(line)) for line in told.splitlines()]


def _hit(told: Mapping[str, Any]) -> Hit:
    body = base64.b64decode(told["body"] or "").decode(errors="replace")
    sent = datetime.fromisoformat(told["timestamp"])
    return Hit(sent, told["code"], told["error"], body, told["latency"] / 1e9, told["url"])
