"""Licence and vulnerability audit of the locked run-time dependencies.

Licences: only those under which AiProject may be passed on (see ALLOWED). Vulnerabilities: by pip-audit, from PyPI's
advisory service. Where that service cannot be reached (a mirror without it), the audit says so loudly and passes;
AIPROJECT_REQUIRE_AUDIT=1 makes that a failure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements" / "run.txt"

ALLOWED = re.compile(
    r"MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|Unlicense|DFSG approved"
    r"|LGPL"  # as a library that is imported, never copied into ours
)
FORBIDDEN = re.compile(r"AGPL|(?<!L)GPL|SSPL|BUSL|Commons Clause|Proprietary", re.IGNORECASE)


def locked() -> list[str]:
    """Return the names of the locked packages."""
    return re.findall(r"^([A-Za-z0-9_.-]+)==", LOCK.read_text("utf-8"), re.MULTILINE)


def audit_licences() -> bool:
    """Say which locked packages are under a licence that is not allowed."""
    names = locked()
    told = subprocess.run(
        [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--packages", *names],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    bad = []
    found = json.loads(told)
    for package in found:
        licence = package["License"]
        if FORBIDDEN.search(licence) or not ALLOWED.search(licence):
            bad.append(f"{package['Name']} {package['Version']}: {licence[:80]}")
    for line in bad:
        print("licence not allowed:", line)
    print(f"licences: {len(found)} packages, {len(bad)} not allowed")
    return not bad


def audit_vulnerabilities() -> bool:
    """Ask pip-audit; true if nothing is known against the locked versions."""
    run = subprocess.run(
        [sys.executable, "-m", "pip_audit", "-r", str(LOCK), "--disable-pip", "--require-hashes", "--format=json"],
        check=False,
        capture_output=True,
        text=True,
    )
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    audited = [package for package in packages if "skip_reason" not in package]
    bad = [package for package in audited if package["vulns"]]
    for package in bad:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "none"
            print(f"vulnerable: {package['name']} {package['version']} {vulnerability['id']} fixed in: {fixed}")
    if not audited:
        print("vulnerabilities: NOT AUDITED, the advisory service cannot be reached from here")
        return os.environ.get("AIPROJECT_REQUIRE_AUDIT") != "1"
    print(f"vulnerabilities: {len(audited)} of {len(packages)} packages audited, {len(bad)} vulnerable")
    return not bad


if __name__ == "__main__":
    results = [audit_licences(), audit_vulnerabilities()]
    sys.exit(0 if all(results) else 1)
