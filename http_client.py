"""HTTP clients that go the way which the environment names, and knock again where no connection is made.

The way is that of ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``. A client of httpx2 that is given a
transport of its own ignores them, so the tries are made here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import httpx2

_WAITS_SECONDS = (0.0, 0.5, 1.0)
_LOOPBACK = ("localhost", "127.0.0.0/8", "[::1]")


def client(timeout: float, *, direct: Iterable[str] = ()) -> httpx2.Client:
    """Return a client; servers on this machine's loopback are asked without a proxy, whatever the environment says.

    Args:
        timeout: Seconds that a server may keep silent.
        direct: Further addresses that are asked without a proxy, IPv6 ones in brackets.

    Raises:
        httpx2.ProxyError: If the environment names a proxy that can't be used.
    """
    mounts = {f"all://{host}": None for host in (*_LOOPBACK, *direct)}
    try:
        return httpx2.Client(timeout=timeout, mounts=mounts)
    except (ImportError, ValueError, httpx2.InvalidURL):
        # Not httpx2's own words: a proxy's URL may hold a password.
        raise httpx2.ProxyError(
            "a proxy that $HTTPS_PROXY, $HTTP_PROXY or $ALL_PROXY names can't be used: give it as http://host:port "
            "(SOCKS is not supported), or unset the variable"
        ) from None


def connected(send: Callable[[], httpx2.Response]) -> httpx2.Response:
    """Send a request, and again where no connection is made: nothing of it was sent then.

    Args:
        send: Sends it; called anew for each try.

    Raises:
        httpx2.HTTPError: If it fails for another reason, or for this one at last.
    """
    for wait in _WAITS_SECONDS:
        try:
            return send()
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            time.sleep(wait)
    return send()
