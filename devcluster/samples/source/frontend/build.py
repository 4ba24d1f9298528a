"""Builds the sample front end: `site/` and what `release.json` says become `dist/`, content hashes in the names."""

import hashlib
import json
import string
from pathlib import Path

HERE = Path(__file__).parent
DIST = HERE / "dist"


def main() -> None:
    """Write `dist/`."""
    values = json.loads((HERE / "release.json").read_text())
    hue = int(hashlib.sha256(json.dumps(values).encode()).hexdigest()[:4], 16) % 360
    values = {**values, "hue": str(hue)}
    (DIST / "assets").mkdir(parents=True, exist_ok=True)
    for name, field in (("app.js", "script"), ("app.css", "stylesheet")):
        content = _rendered(name, values)
        stem, _, suffix = name.partition(".")
        values[field] = f"{stem}.{hashlib.sha256(content).hexdigest()[:8]}.{suffix}"
        (DIST / "assets" / values[field]).write_bytes(content)
    (DIST / "index.html").write_bytes(_rendered("index.html", values))


def _rendered(name: str, values: dict[str, str]) -> bytes:
    return string.Template((HERE / "site" / name).read_text()).substitute(values).encode()


if __name__ == "__main__":
    main()
