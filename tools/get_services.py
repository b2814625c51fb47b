#!/usr/bin/env python3
"""Sees to it that the programs the tests need can be started: databases, Redis or Valkey, nginx, HAProxy, and curl; and
what makes a cluster of MariaDB: Galera's library, rsync, and the scripts by which a node is given its state.

    python3 tools/get_services.py [--require] [--only NAME ...] [--ignore-installed]

A server that the machine has is used as it is. A missing one is fetched with the machine's own apt, from the mirror in
the machine's own apt sources, and *unpacked* under `.services/<name>` of the clone. Nothing is installed, no service
is started, no file outside `.services` is written (apt's lists and cache are private directories, so empty lists on
the machine do not matter), and root is not needed. Deleting `.services` undoes it all.

Where a Debian release has no MySQL (stable has MariaDB only), it is taken from the unstable suite, together with the C
library it was built for, and run by that library's own loader; the machine's library is not touched.

What cannot be had is said loudly. The exit status is 0 all the same, since the tests skip what is missing; with
``--require`` it is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".services"

# Seconds. A slow mirror may need minutes for 60 MB; one that says nothing for this long is given up.
APT_TIMEOUT = 900

# Where distributions put server programs; /usr/sbin is not on everybody's PATH.
PROGRAM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

DATABASE_PACKAGES = tuple(
    f"Package: {prefix}"
    for prefix in ("mariadb", "libmariadb", "galera", "mysql", "libmysql", "postgresql", "libpq", "redis", "valkey")
)


class NotToBeHad(Exception):
    """This machine cannot give the server; the message says why."""


@dataclass(frozen=True)
class Source:
    """Where packages come from: a mirror and a suite of it.

    Attributes:
        own_libraries: the suite is not the machine's own, so its programs must run on their own C library.
    """

    mirror: str
    suite: str
    components: str
    signed_by: str
    own_libraries: bool = False

    def line(self) -> str:
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.mirror} {self.suite} {self.components}\n"


@dataclass(frozen=True)
class Service:
    """One server: how to see that the machine has it, and which packages and programs make it.

    Attributes:
        packages: alternatives; the first whose packages the suite has is taken.
        programs: name of the starter written to `.services/<name>/` -> pattern of the program in the packages.
        version_option: by which the programs tell their version, and thereby that they can be started.
    """

    name: str
    find_installed: Callable[[], str | None]
    packages: tuple[tuple[str, ...], ...]
    programs: dict[str, str]
    try_unstable: bool = False
    arguments: dict[str, str] = field(default_factory=dict)
    version_option: str = "--version"


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="fetch the servers that the tests need")
    parser.add_argument("--require", action="store_true", help="exit with 1 if one cannot be had")
    parser.add_argument("--only", nargs="+", choices=[service.name for service in SERVICES], help="just these")
    parser.add_argument("--ignore-installed", action="store_true", help="unpack even what the machine has")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to unpack (default: .services in the clone)")
    options = parser.parse_args()

    missing = []
    for service in SERVICES:
        if options.only and service.name not in options.only:
            continue
        try:
            where = provide(service, options.folder.resolve(), ignore_installed=options.ignore_installed)
        except NotToBeHad as reason:
            missing.append(service.name)
            say(f"{service.name}: MISSING: {reason}")
        else:
            say(f"{service.name}: {where}")
    if missing:
        say("=" * 72)
        say(f"Without {', '.join(missing)} the tests on it are skipped. Install it, or mend what is said above.")
        say("=" * 72)
    return 1 if missing and options.require else 0


def say(text: str) -> None:
    print(f"get_services: {text}", file=sys.stderr, flush=True)


# -- what the machine has ----------------------------------------------------------------------------------------------


def find_program(*names: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *PROGRAM_DIRECTORIES])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    return None


def installed_mariadb() -> str | None:
    return find_program("mariadbd") if find_program("mariadb-install-db") else None


def installed_postgresql() -> str | None:
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: version_key(path.parent.parent.name)
    )
    if versions:
        return str(versions[-1].parent)
    initdb = find_program("initdb")
    return str(Path(initdb).resolve().parent) if initdb else None


def installed_mysql() -> str | None:
    """A ``mysqld`` counts only if it is MySQL's: Debian gives MariaDB that name, too."""
    program = find_program("mysqld")
    if program is None:
        return None
    version = subprocess.run([program, "--no-defaults", "--version"], capture_output=True, text=True, check=False)
    return program if version.returncode == 0 and "MariaDB" not in version.stdout else None


def installed_redis() -> str | None:
    return find_program("redis-server", "valkey-server")


def installed_curl() -> str | None:
    """A ``curl`` counts only if it can offer HTTP/2."""
    program = find_program("curl")
    if program is None:
        return None
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return program if "HTTP2" in version.stdout.split() else None


GALERA_LIBRARIES = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
)


def installed_galera() -> str | None:
    """The library, if the machine also has what a joining node runs."""
    library = next((path for path in GALERA_LIBRARIES if Path(path).exists()), None)
    return library if find_program("rsync") and find_program("wsrep_sst_rsync") else None


def version_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


# -- fetching ----------------------------------------------------------------------------------------------------------


def provide(service: Service, folder: Path, *, ignore_installed: bool) -> str:
    """Make one server available and say where it is. Raises NotToBeHad."""
    if not ignore_installed and (installed := service.find_installed()):
        return f"installed ({installed})"
    target = folder / service.name
    if all((target / program).exists() for program in service.programs):
        return f"unpacked before ({target})"
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if find_program(tool) is None:
            raise NotToBeHad(f"neither installed here, nor is there {tool} to fetch it with")
    reasons = []
    for source in sources(service):
        say(f"{service.name}: fetching from {source.suite} of this machine's mirror")
        try:
            unpack(service, source, target, forget_installed=ignore_installed)
        except NotToBeHad as reason:
            reasons.append(f"{source.suite}: {reason}")
        else:
            return f"unpacked ({target})"
    raise NotToBeHad("; ".join(reasons) or "no mirror in this machine's apt sources")


def sources(service: Service) -> Iterator[Source]:
    release = dict(os_release())
    base = machine_source(release.get("VERSION_CODENAME", ""))
    if base is None:
        return
    if base.suite:
        yield base
    if service.try_unstable and release.get("ID") == "debian" and base.suite != "sid":
        yield Source(base.mirror, "sid", "main", base.signed_by, own_libraries=True)


def os_release() -> Iterator[tuple[str, str]]:
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                name, separator, value = line.partition("=")
                if separator:
                    yield name.strip(), value.strip().strip('"')
            return


def machine_source(codename: str) -> Source | None:
    """The distribution's own mirror, read from the apt sources in either of their two forms.

    The entry for the plain release is wanted: not its security suite, nor some vendor's repository, whose suites
    have other names.
    """
    directory = Path("/etc/apt/sources.list.d")
    for path in sorted(directory.glob("*.sources")) if directory.is_dir() else []:
        for stanza in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            entry = {}
            for line in stanza.splitlines():
                name, separator, value = line.partition(":")
                if separator and not line.startswith("#"):
                    entry[name.strip().lower()] = value.strip()
            if entry.get("enabled", "yes").lower() == "no" or "deb" not in entry.get("types", "").split():
                continue
            if is_release(codename, entry.get("suites", "").split()) and entry.get("uris"):
                keyring = entry.get("signed-by", "")
                return Source(
                    entry["uris"].split()[0],
                    codename or entry["suites"].split()[0],
                    entry.get("components", "main"),
                    keyring if keyring.startswith("/") else default_keyring(),
                )
    lists = [Path("/etc/apt/sources.list"), *(sorted(directory.glob("*.list")) if directory.is_dir() else [])]
    for path in lists:
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split("#")[0].replace("[", " [ ").replace("]", " ] ").split()
            if not words or words[0] != "deb":
                continue
            keyring = default_keyring()
            if "[" in words and "]" in words:
                opening, closing = words.index("["), words.index("]")
                for option in words[opening + 1 : closing]:
                    if option.startswith("signed-by=/"):
                        keyring = option.removeprefix("signed-by=")
                words = words[:opening] + words[closing + 1 :]
            if len(words) > 3 and is_release(codename, [words[2]]):
                return Source(words[1], words[2], " ".join(words[3:]), keyring)
    return None


def is_release(codename: str, suites: list[str]) -> bool:
    """Whether these suites are the release itself. Unstable has no code name in os-release, or that of the next one."""
    return codename in suites or bool({"sid", "unstable", "stable", "testing"} & set(suites))


def default_keyring() -> str:
    for path in ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"):
        if Path(path).exists():
            return path
    return ""  # apt then trusts the keys in /etc/apt/trusted.gpg.d, as it does for the machine's own sources


def unpack(service: Service, source: Source, target: Path, *, forget_installed: bool) -> None:
    """Fetch a service's packages and their dependencies and unpack them into `target`. Raises NotToBeHad.

    Args:
        forget_installed: fetch also those of its dependencies that belong to a database and that the machine has.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="aiproject-apt-") as work,
        tempfile.TemporaryDirectory(prefix=f"{service.name}-", dir=target.parent) as fresh,
    ):
        apt = Apt(Path(work), source, forget_installed=forget_installed)
        apt.update()
        archives = apt.download(service.packages)
        root = Path(fresh) / "root"
        for archive in archives:
            run(["dpkg-deb", "-x", str(archive), str(root)])
        write_starters(service, source, Path(fresh), target)
        # Only now, whole and by one rename: an unpacking that was broken off leaves nothing that looks finished.
        if target.exists():
            shutil.rmtree(target)
        Path(fresh).rename(target)
        Path(fresh).mkdir()  # TemporaryDirectory wants something to remove
        target.chmod(0o755)
    for program in service.programs:
        if program not in ("mariadb-install-db", "wsrep_sst_rsync"):  # shell scripts without --version
            run([str(target / program), service.version_option])


class Apt:
    """The machine's apt with lists, cache and state of its own."""

    def __init__(self, work: Path, source: Source, *, forget_installed: bool) -> None:
        for directory in ("lists/partial", "archives/partial"):
            (work / directory).mkdir(parents=True)
        # With an empty status apt fetches every dependency down to the C library. The machine's own status is right
        # where its own suite is asked: what is there need not come again, and fits.
        status, machine = work / "status", Path("/var/lib/dpkg/status")
        packages = []
        if not source.own_libraries and machine.exists():
            packages = machine.read_text(encoding="utf-8", errors="replace").split("\n\n")
        if forget_installed:
            packages = [entry for entry in packages if not entry.startswith(DATABASE_PACKAGES)]
        status.write_text("\n\n".join(packages), encoding="utf-8")
        (work / "sources.list").write_text(source.line(), encoding="utf-8")
        self._archives = work / "archives"
        self._options = [
            "-qq",
            f"-oDir::State::Lists={work / 'lists'}",
            f"-oDir::State::status={status}",
            f"-oDir::Etc::SourceList={work / 'sources.list'}",
            "-oDir::Etc::SourceParts=/dev/null",
            f"-oDir::Cache={work}",
            f"-oDir::Cache::archives={self._archives}",
            "-oDebug::NoLocking=1",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=3",
        ]
        if os.geteuid() == 0:
            # apt would drop to a user who may not enter our temporary directory.
            self._options.append("-oAPT::Sandbox::User=root")

    def update(self) -> None:
        run(["apt-get", *self._options, "update"])

    def download(self, alternatives: tuple[tuple[str, ...], ...]) -> list[Path]:
        for packages in alternatives:
            if all(self._has(package) for package in packages):
                run(
                    [
                        "apt-get",
                        *self._options,
                        "-y",
                        "--download-only",
                        "--no-install-recommends",
                        "--reinstall",
                        "install",
                        *packages,
                    ]
                )
                return sorted(self._archives.glob("*.deb"))
        raise NotToBeHad(f"no package {' or '.join(packages[0] for packages in alternatives)}")

    def _has(self, package: str) -> bool:
        shown = subprocess.run(
            ["apt-cache", *self._options, "show", "--no-all-versions", package],
            capture_output=True,
            text=True,
            check=False,
            timeout=APT_TIMEOUT,
        )
        return shown.returncode == 0 and f"Package: {package}\n" in shown.stdout


def write_starters(service: Service, source: Source, fresh: Path, target: Path) -> None:
    """Write a small script for each program, which starts it with the libraries it was unpacked with."""
    root, final = fresh / "root", target / "root"
    libraries = [
        str(final / path.relative_to(root))
        for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/mysql*")
        for path in sorted(root.glob(pattern))
        if path.is_dir()
    ]
    library_path = ":".join(libraries)
    for starter, pattern in service.programs.items():
        found = sorted(root.glob(pattern), key=lambda path: version_key(path.parent.parent.name))
        if not found:
            raise NotToBeHad(f"the packages hold no {pattern}")
        program = final / found[-1].relative_to(root)
        arguments = service.arguments.get(starter, "").format(root=final)
        if source.own_libraries:
            loaders = sorted(
                path
                for directory in ("lib64", "usr/lib64", "lib", "usr/lib")
                for path in root.glob(f"{directory}/ld-linux*.so.*")
            )
            if not loaders:
                raise NotToBeHad("the packages hold no loader for their own C library")
            loader = final / loaders[0].relative_to(root)
            command = f'exec "{loader}" --library-path "{library_path}" "{program}" "$@" {arguments}'
        else:
            environment = f'export LD_LIBRARY_PATH="{library_path}"\n' if libraries else ""
            command = f'{environment}exec "{program}" "$@" {arguments}'
        path = fresh / starter
        path.write_text(f"#!/bin/sh\n{command.rstrip()}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def run(command: list[str]) -> None:
    """Run a command quietly; its complaint becomes the reason of NotToBeHad."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=APT_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{command[0]}: {type(error).__name__}") from error
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise NotToBeHad(f"{Path(command[0]).name}: {' / '.join(lines[:3])}")


SERVICES = (
    Service(
        name="mariadb",
        find_installed=installed_mariadb,
        packages=(("mariadb-server-core", "mariadb-client-core"),),
        programs={"mariadbd": "usr/sbin/mariadbd", "mariadb-install-db": "usr/bin/mariadb-install-db"},
        arguments={
            "mariadb-install-db": '--basedir="{root}/usr"',
            "mariadbd": '--lc-messages-dir="{root}/usr/share/mysql"',
        },
    ),
    Service(
        name="postgresql",
        find_installed=installed_postgresql,
        packages=(("postgresql",),),
        programs={"initdb": "usr/lib/postgresql/*/bin/initdb", "postgres": "usr/lib/postgresql/*/bin/postgres"},
    ),
    Service(
        name="mysql",
        find_installed=installed_mysql,
        packages=(("mysql-server-core",), ("mysql-server-core-8.4",), ("mysql-server-core-8.0",)),
        programs={"mysqld": "usr/sbin/mysqld"},
        try_unstable=True,
        arguments={"mysqld": '--lc-messages-dir="{root}/usr/share/mysql"'},
    ),
    Service(
        name="redis",
        find_installed=installed_redis,
        # Valkey is its free successor, and speaks the same; later Debian releases have it.
        packages=(("redis-server",), ("valkey-server",)),
        programs={"redis-server": "usr/bin/*-server"},
    ),
    Service(
        name="nginx",
        find_installed=partial(find_program, "nginx"),
        packages=(("nginx",),),
        programs={"nginx": "usr/sbin/nginx"},
        version_option="-v",
    ),
    Service(
        name="haproxy",
        find_installed=partial(find_program, "haproxy"),
        packages=(("haproxy",),),
        programs={"haproxy": "usr/sbin/haproxy"},
        version_option="-v",
    ),
    Service(
        name="curl",
        find_installed=installed_curl,
        packages=(("curl",),),
        programs={"curl": "usr/bin/curl"},
    ),
    Service(
        name="galera",
        find_installed=installed_galera,
        packages=(("galera-4", "mariadb-server", "rsync"),),
        # Its starter gives rsync, which it calls, the libraries that were unpacked with it.
        programs={"wsrep_sst_rsync": "usr/bin/wsrep_sst_rsync"},
    ),
)


if __name__ == "__main__":
    sys.exit(main())
