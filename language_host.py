"""Serves the program to an engine that is started meanwhile: the command `release` loads it ahead.

Python, the SDKs and the components take a second to load, as long as the engine takes to start. Pulumi's own language
host starts them one after the other; here they are loaded side by side (``pulumi up --client``, as Pulumi's Automation
API runs its inline programs). A plain ``pulumi up`` does not use this file.

Started as ``python language_host.py unix:FOLDER/socket``, it prints a line when it can be called there. It is told
the environment of the program in one line of JSON on standard input, waits with the program until then, and ends with
that input, after removing FOLDER, which is its own. See docs/adr/0021-the-program-is-loaded-ahead.md.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import os
import runpy
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
from pulumi import log
from pulumi.automation._server import LanguageServer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS  # pyright: ignore[reportPrivateUsage]
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

PROGRAM = Path(__file__).with_name("__main__.py")
READY = "ready"
_CALLS = 4
"""Calls that are served at a time; the engine makes one after the other."""


def _program() -> None:
    runpy.run_path(str(PROGRAM), run_name="__main__")


class Server(LanguageServer):
    """Runs the program as Pulumi's own language host does: config in the environment, errors told once."""

    def __init__(self) -> None:
        """Prepare it; nothing is loaded yet."""
        super().__init__(_program)
        self.loaded = threading.Event()
        self.told = threading.Event()

    def Run(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the protocol
        """Run the program once."""
        self.loaded.wait()
        self.told.wait()
        os.environ["PULUMI_CONFIG"] = json.dumps(dict(request.config))
        os.environ["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(request.configSecretKeys))
        result = cast("Any", super()).Run(request, context)
        # The error was logged; as an error of this call it would be told again.
        return language_pb2.RunResponse(bail=True) if result.error else result


def load(program: Path) -> None:
    """Import what the program imports, without running it; what is wrong with it, its run tells.

    What is imported stays: to look for garbage in it would be a seventh of the work.
    """
    gc.disable()
    with contextlib.suppress(Exception):
        tree = ast.parse(program.read_text(encoding="utf-8"))
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            exec(compile(ast.Module([node], []), str(program), "exec"), {})  # noqa: S102 - the program's own lines
    gc.freeze()
    gc.enable()


def _untold(*_: object, **__: object) -> None:
    """Say nothing for debugging: `release` never asks for it, and each word is a call to the engine that is waited for.

    The SDK has four such words for each resource.
    """


def _become(told: dict[str, str]) -> None:
    """Make the environment be this one; what is the same is not touched, as other threads may be reading it."""
    for name in os.environ.keys() - told.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in told.items() if os.environ.get(name) != value})


def _listen(server: Server, address: str) -> None:
    """Take in what the program is told; end with whoever tells it, and with the folder of the socket."""
    for line in sys.stdin:
        _become(json.loads(line))
        server.told.set()
    shutil.rmtree(Path(address.removeprefix("unix:")).parent, ignore_errors=True)
    os._exit(0)


def main(address: str) -> None:
    """Serve until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server()
    threading.Thread(target=_listen, args=(server, address), daemon=True).start()
    served = grpc.server(ThreadPoolExecutor(max_workers=_CALLS), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(server, served)
    served.add_insecure_port(address)
    served.start()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the program prints is nobody's protocol
    log.debug = _untold
    load(PROGRAM)
    server.loaded.set()
    served.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
