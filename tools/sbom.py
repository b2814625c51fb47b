"""Write the software bill of materials: what a running AiProject is made of, as CycloneDX JSON.

From the lock file, so that it names the very artefacts (with their hashes) that an installation gets, on any platform.
Reproducible: the same lock file gives the same bytes. Written to build/, which is not under version control.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "run.txt"
VERSION = ROOT / "src" / "aiproject" / "__init__.py"
OUTPUT = ROOT / "build" / "sbom.cdx.json"


def write() -> None:
    """Have cyclonedx-bom write it and check it against the schema; add our own version, which pyproject leaves open."""
    OUTPUT.parent.mkdir(exist_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements", str(LOCK)),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--validate"),
            *("--spec-version", "1.6", "--output-format", "JSON", "--output-file", str(OUTPUT)),
        ],
        check=True,
    )
    document = json.loads(OUTPUT.read_text("utf-8"))
    (version,) = re.findall(r'^__version__ = "(.+)"$', VERSION.read_text("utf-8"), re.MULTILINE)
    document["metadata"]["component"]["version"] = version
    OUTPUT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")


def missing() -> list[str]:
    """Return the locked packages that it does not name with their version and a hash."""
    components = json.loads(OUTPUT.read_text("utf-8"))["components"]
    named = {
        f"{component['name']}=={component['version']}".lower()
        for component in components
        if any(reference.get("hashes") for reference in component.get("externalReferences", ()))
    }
    locked = re.findall(r"^([A-Za-z0-9_.-]+==[^ ;\\]+)", LOCK.read_text("utf-8"), re.MULTILINE)
    print(f"bill of materials: {len(components)} components in {OUTPUT.relative_to(ROOT)}")
    return [package for package in locked if package.lower() not in named]


if __name__ == "__main__":
    write()
    gaps = missing()
    for package in gaps:
        print("not in the bill of materials:", package)
    sys.exit(1 if gaps else 0)
