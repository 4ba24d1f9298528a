"""Looking for planted secrets: in texts, files, and the arguments of every process of the machine."""

import base64
import contextlib
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.02


def encoded(secret: str) -> list[str]:
    """Return how a secret looks in Base64, wherever in a longer text it begins."""
    found: list[str] = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret.encode()).decode()
        # The first and the last group also hold what is beside it.
        found.append(text[4 if before else 0 : -4])
    return found


def leaks(secrets: Mapping[str, str], texts: Mapping[str, str], *, plain_only: bool = False) -> list[str]:
    """Return ``secret in place`` for each secret that is in a text, plain or in Base64.

    Args:
        secrets: What it is → its value.
        texts: Where → what is there.
        plain_only: Whether Base64 does not count.
    """
    return [
        f"{name} in {place}"
        for name, value in secrets.items()
        for place, text in texts.items()
        if any(form in text for form in [value, *([] if plain_only else encoded(value))])
    ]


def files_below(folder: Path) -> dict[str, str]:
    """Return path → text of every file below a folder."""
    return {str(path): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}


@dataclass
class Arguments:
    """The arguments of all processes that were seen."""

    seen: set[str] = field(default_factory=set[str])

    def of(self, program: str) -> list[str]:
        return [line for line in self.seen if program in line.split(" ", 1)[0]]


@contextmanager
def watched_arguments() -> Generator[Arguments]:
    """Look at the arguments of every process, for as long as the context lasts."""
    arguments, done = Arguments(), threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            arguments.seen |= set(_arguments(path.name for path in Path("/proc").iterdir()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield arguments
    finally:
        done.set()
        thread.join()


def _arguments(names: Iterable[str]) -> Generator[str]:
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
