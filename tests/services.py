"""Servers of the tests' own, databases and Redis: started on loopback, in a directory of their own, ended by their pid.

Nothing here touches a server that the machine runs for itself: each has its own data, port and socket. The programs
are the machine's or those that `tools/get_services.py` unpacked under `.services`.

A server ends with the process that started it, even if that is killed (where util-linux's `setpriv` is at hand), so
start it from a thread that lives as long as it is needed: the main one.

None of them waits for the disk (no fsync). What a killed server has written stays all the same, since the machine
runs on; only a power cut of the machine would tell the difference, and no test has one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import asyncmy
import asyncpg
import redis.asyncio

__all__ = [
    "Galera",
    "MariaDB",
    "MySQL",
    "PostgreSQL",
    "Redis",
    "Server",
    "ServerMissing",
    "find_galera",
    "find_service_program",
    "free_port",
    "remove_fresh_data",
]

CLONE = Path(__file__).resolve().parent.parent
UNPACKED = CLONE / ".services"

USER = "aiproject"
# Every character in it has broken some program that pastes passwords into URLs or shells.
PASSWORD = "p@ss:w/ö rd%2F#?"

START_SECONDS = 90.0  # a cold MySQL on a busy machine with two cores takes about ten
STOP_SECONDS = 30.0

_T = TypeVar("_T")


class ServerMissing(Exception):
    """The server's programs are not on this machine; the message says how to get them."""


class Server(ABC):
    """A database server under a directory of its own.

    `start` may be called again after `stop` or `kill`: the data and the port stay.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        # Short and outside of the clone: a Unix socket's path has about a hundred characters, and a server that may
        # not run as root must be able to enter.
        self.directory = Path(tempfile.mkdtemp(prefix=f"aiproject-{self.name}-", dir="/tmp"))
        self.port = free_port()
        self.socket_path = self.directory / "s.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_initialised = False

    # -- to be said by each kind --

    @abstractmethod
    def _initialise(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    async def _execute(self, statement: str, database: str | None) -> None: ...

    @abstractmethod
    def url(self, database: str) -> str:
        """The URL of one of its databases, as an operator would write it."""

    @abstractmethod
    def socket_url(self, database: str) -> str:
        """The same by the server's Unix socket."""

    _stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    _run_as: int | None = None

    # -- life --

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        if not self._is_initialised:
            self._initialise_once()
            self._is_initialised = True
        command = self._command()
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops us in good order
                env={**os.environ, **self._environment()},
                **self._identity(),
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except Exception as error:
                tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                if self._process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended at its start:\n{tail}") from error
                if time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"{self.name} does not answer ({error!r}):\n{tail}") from error
                time.sleep(0.1)
            else:
                return

    def _initialise_once(self) -> None:
        """The first server of a kind makes its data, which takes seconds; the others of this process copy them."""
        data = self.directory / "data"
        if (fresh := _fresh_data.get(type(self))) is not None:
            _copy_tree(fresh, data)
            return
        self._initialise()
        fresh = Path(tempfile.mkdtemp(prefix=f"aiproject-{self.name}-fresh-", dir="/tmp")) / "data"
        _copy_tree(data, fresh)
        _fresh_data[type(self)] = fresh

    def stop(self) -> None:
        """End it in good order."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            # With its children: PostgreSQL's go on for a moment without their parent, and would still commit.
            self._signal_all(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: its connections stand, but nothing comes. As behind a cable that was pulled."""
        deadline = time.monotonic() + STOP_SECONDS
        while not all(state == "T" for state in self._signal_all(signal.SIGSTOP)):
            # On a busy machine a thread may go on for a moment, long enough to answer.
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not stop")
            time.sleep(0.01)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> list[str]:
        """To it and its children: PostgreSQL has a process for each connection. Returns the states of all threads."""
        states: list[str] = []
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        for pid in [self.pid, *map(int, children.split())]:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(pid, number)
                threads = [
                    (entry / "stat").read_text("utf-8", "replace") for entry in Path(f"/proc/{pid}/task").iterdir()
                ]
                states += [stat.rpartition(")")[2].split()[0] for stat in threads]
        return states

    def remove(self) -> None:
        """End it and delete its data, which therefore need not be brought into order first."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        """Variables of its own."""
        return {}

    def _identity(self) -> dict[str, Any]:
        if self._run_as is None:
            return {}
        return {"user": self._run_as, "group": self._run_as_group, "extra_groups": []}

    _run_as_group: int | None = None

    def _hand_over(self, path: Path) -> None:
        """Make a file or folder the server's own, where it runs as another user than we do."""
        if self._run_as is not None and self._run_as_group is not None:
            os.chown(path, self._run_as, self._run_as_group)

    def _run(self, command: list[str], **environment: str) -> None:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=self.directory,
            env={**os.environ, **environment},
            timeout=START_SECONDS,
            **self._identity(),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")

    def _may_run(self, program: Path) -> bool:
        """Whether the user that the server runs as can reach and start it."""
        try:
            self._run([str(program), "--version"])
        except (OSError, RuntimeError):
            return False
        return True

    # -- databases --

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        database = f"t_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {database}")
        return database

    def copy_database(self, template: str) -> str:
        """Make a copy of a database that nobody is connected to, and return its name."""
        database = f"t_{secrets.token_hex(6)}"
        _in_a_thread(lambda: self._copy(template, database))
        return database

    @abstractmethod
    async def _copy(self, template: str, database: str) -> None: ...

    def drop_database(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {database}")

    def execute(self, statement: str, database: str | None = None) -> None:
        """Run one statement as the administrator, from synchronous code, whatever loop the caller may have."""
        _in_a_thread(lambda: self._execute(statement, database))


_fresh_data: dict[type[Server], Path] = {}  # kind of server -> data that no server has run on


@atexit.register
def remove_fresh_data() -> None:
    """Delete what is kept for further servers. Called at the end of the process at the latest."""
    while _fresh_data:
        _, fresh = _fresh_data.popitem()
        shutil.rmtree(fresh.parent, ignore_errors=True)


_reservations: list[socket.socket] = []  # held until this process ends


def free_port() -> int:
    """A TCP port of loopback that nobody listens on, and that stays ours while this process lives.

    It is none of those that the system gives to whoever asks for any, so it is still free when a server comes back to
    it. Against other runs of these tests it is kept by the UDP port of the same number.
    """
    for port in random.SystemRandom().sample(_FIXED_PORTS, len(_FIXED_PORTS)):
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError as error:
            reservation.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            _reservations.append(reservation)
            return port
    raise RuntimeError("every port for the tests' servers is taken")


def _ports_never_given_out() -> range:
    """Unprivileged ports below those that the system picks from (Linux: from 32768; elsewhere higher)."""
    with contextlib.suppress(OSError, ValueError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
        if first > 11_000:
            return range(10_000, min(first, 32_768))
    return range(10_000, 32_768)


_FIXED_PORTS = _ports_never_given_out()


def _copy_tree(source: Path, target: Path) -> None:
    """With owners and modes; holes stay holes where the machine's ``cp`` can do that."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=START_SECONDS)


class _MySQLFamily(Server):
    def __init__(self) -> None:
        super().__init__()
        self._copying_of: dict[str, list[str]] = {}  # database -> statements that make a copy of it

    async def _execute(self, statement: str, database: str | None) -> None:
        connection = await asyncmy.connect(
            unix_socket=str(self.socket_path), user="root", database=database, connect_timeout=5, autocommit=True
        )
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(statement)
        finally:
            await connection.ensure_closed()

    async def _copy(self, template: str, database: str) -> None:
        """By the statements that the server itself gives for the tables; several times faster than migrations."""
        connection = await asyncmy.connect(
            unix_socket=str(self.socket_path), user="root", database=template, connect_timeout=5, autocommit=True
        )
        try:
            async with connection.cursor() as cursor:
                if template not in self._copying_of:
                    self._copying_of[template] = await self._copying(cursor)
                await cursor.execute(f"CREATE DATABASE {database}")
                await cursor.execute(f"USE {database}")
                await cursor.execute("SET foreign_key_checks = 0")  # whatever the order of the tables
                for statement in self._copying_of[template]:
                    await cursor.execute(statement)
        finally:
            await connection.ensure_closed()

    async def _copying(self, cursor: Any) -> list[str]:
        """The statements that make the tables and rows of the connection's database in another."""
        await cursor.execute("SELECT DATABASE()")
        template = (await cursor.fetchone())[0]
        await cursor.execute("SHOW TABLES")
        statements = []
        for (table,) in await cursor.fetchall():
            await cursor.execute(f"SHOW CREATE TABLE `{table}`")
            statements.append((await cursor.fetchone())[1])
            await cursor.execute(f"SELECT EXISTS (SELECT * FROM `{table}`)")  # noqa: S608 - a name of ours
            if (await cursor.fetchone())[0]:
                statements.append(f"INSERT INTO `{table}` SELECT * FROM {template}.`{table}`")  # noqa: S608
        return statements

    def url(self, database: str) -> str:
        return f"{self.name}://{USER}:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str) -> str:
        credentials = f"{USER}:{urllib.parse.quote(PASSWORD, safe='')}"
        return f"{self.name}://{credentials}@/{database}?unix_socket={self.socket_path}"

    def _scratch(self) -> str:
        """Its own folder for passing tables: a server that starts removes those that it finds, also another's that is
        being made at this moment."""
        path = self.directory / "tmp"
        path.mkdir(exist_ok=True)
        self._hand_over(path)
        return str(path)

    def _shared_options(self) -> list[str]:
        return [
            *(["--user=root"] if os.geteuid() == 0 else []),
            f"--tmpdir={self._scratch()}",
            f"--datadir={self.directory / 'data'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.socket_path}",
            f"--pid-file={self.directory / 'pid'}",
            f"--init-file={self._init_file()}",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=64M",
            "--max-connections=300",
            "--innodb-flush-method=nosync",
        ]

    def _init_file(self) -> Path:
        path = self.directory / "init.sql"
        path.write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )
        return path


class MariaDB(_MySQLFamily):
    """MariaDB, with an account that the server authenticates in its usual way (mysql_native_password)."""

    name = "mariadb"

    def __init__(self) -> None:
        self._server = find_service_program("mariadb", "mariadbd")
        self._install = find_service_program("mariadb", "mariadb-install-db")
        super().__init__()

    def _initialise(self) -> None:
        command = [
            self._install,
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]
        if os.geteuid() == 0:
            command.append("--user=root")
        self._run(command, TMPDIR=self._scratch())

    def _command(self) -> list[str]:
        return [self._server, "--no-defaults", *self._shared_options(), "--debug-no-sync"]


class MySQL(_MySQLFamily):
    """MySQL, with an account that the server authenticates in its usual way (caching_sha2_password)."""

    name = "mysql"

    def __init__(self) -> None:
        self._server = find_service_program("mysql", "mysqld")
        super().__init__()

    def _initialise(self) -> None:
        command = [
            self._server,
            "--no-defaults",
            "--initialize-insecure",
            f"--datadir={self.directory / 'data'}",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-method=nosync",
        ]
        if os.geteuid() == 0:
            command.append("--user=root")
        self._run(command, TMPDIR=self._scratch())

    def _command(self) -> list[str]:
        return [
            self._server,
            "--no-defaults",
            *self._shared_options(),
            "--mysqlx=OFF",
            "--secure-file-priv=NULL",
        ]


class PostgreSQL(Server):
    """PostgreSQL, with an account that proves its password by SCRAM."""

    name = "postgresql"
    _stop_signal = signal.SIGINT  # "fast": does not wait for clients

    def __init__(self) -> None:
        programs = _postgresql_programs()
        super().__init__()
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            self._run_as, self._run_as_group = _unprivileged_user()
            os.chown(self.directory, self._run_as, self._run_as_group)
            if not self._may_run(programs / "initdb"):
                # An unpacked one in a clone that only root may enter: the server gets a copy within its reach. Its
                # starters hold absolute paths, so they are written anew.
                copy = self.directory / "programs"
                shutil.copytree(programs, copy, symlinks=True)
                for starter in ("initdb", "postgres"):
                    text = (copy / starter).read_text(encoding="utf-8")
                    (copy / starter).write_text(text.replace(str(programs), str(copy)), encoding="utf-8")
                programs = copy
        self._programs = programs

    def _initialise(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        self._hand_over(password)
        self._run(
            [
                str(self._programs / "initdb"),
                f"--pgdata={self.directory / 'data'}",
                f"--username={USER}",
                f"--pwfile={password}",
                "--no-sync",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            TZ="UTC",
        )

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "shared_buffers": "64MB",
            "max_connections": "300",
            "timezone": "UTC",
            "fsync": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self.directory / "data"), *options]

    async def _execute(self, statement: str, database: str | None) -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            database=database or "postgres",
            timeout=5,
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _copy(self, template: str, database: str) -> None:
        await self._execute(f"CREATE DATABASE {database} TEMPLATE {template}", None)

    def drop_database(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str) -> str:
        credentials = f"{USER}:{urllib.parse.quote(PASSWORD, safe='')}"
        return f"postgresql://{credentials}@:{self.port}/{database}?host={self.directory}"


class Redis(Server):
    """Redis or Valkey, with a password, and nothing kept on disk: who restarts it has lost what was in it."""

    name = "redis"

    def __init__(self) -> None:
        self._program = find_service_program("redis", "redis-server")
        super().__init__()

    def _initialise(self) -> None:
        (self.directory / "data").mkdir()

    def _command(self) -> list[str]:
        # Not in the command line, where everybody on the machine could read the password.
        word = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        configuration = self.directory / "redis.conf"
        configuration.write_text(
            f'requirepass "{word}"\nbind 127.0.0.1\nport {self.port}\nunixsocket {self.socket_path}\n'
            f'dir {self.directory / "data"}\nsave ""\nappendonly no\ndaemonize no\n',
            encoding="utf-8",
        )
        return [self._program, str(configuration)]

    async def _execute(self, statement: str, database: str | None) -> None:
        client = redis.asyncio.Redis.from_url(self.url(database or "0"), socket_timeout=5)
        try:
            await client.execute_command(*statement.split())  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    async def _copy(self, template: str, database: str) -> None:
        raise RuntimeError("Redis keeps nothing that would be worth a copy")

    def url(self, database: str = "0") -> str:
        return f"redis://:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "0") -> str:
        return f"unix://:{urllib.parse.quote(PASSWORD, safe='')}@{self.socket_path}?db={database}"

    def clear(self) -> None:
        """Forget everything."""
        self.execute("FLUSHALL")


# -- finding the programs ----------------------------------------------------------------------------------------------


def find_service_program(service: str, program: str) -> str:
    """The machine's program, or the one that the tool unpacked. Raises ServerMissing."""
    tool = _load_tool()
    installed = {"mysql": tool.installed_mysql, "redis": tool.installed_redis, "curl": tool.installed_curl}
    if found := installed.get(service, lambda: tool.find_program(program))():
        return str(found)
    unpacked = UNPACKED / service / program
    if unpacked.exists():
        return str(unpacked)
    raise ServerMissing(f"no {service} on this machine; run: python3 tools/get_services.py")


@dataclass(frozen=True)
class Galera:
    """What makes a cluster of MariaDB.

    Attributes:
        library: the provider that a node loads.
        programs: folders with what a joining node runs, before those of ``PATH``; none where the machine has them.
    """

    library: Path
    programs: tuple[Path, ...] = ()


def find_galera() -> Galera:
    """The machine's Galera, or the one that the tool unpacked. Raises ServerMissing."""
    if found := _load_tool().installed_galera():
        return Galera(Path(found))
    folder = UNPACKED / "galera"
    library = folder / "root" / "usr" / "lib" / "galera" / "libgalera_smm.so"
    if not library.exists():
        raise ServerMissing("no Galera (galera-4, rsync) on this machine; run: python3 tools/get_services.py")
    return Galera(library, (folder, folder / "root" / "usr" / "bin"))


def _postgresql_programs() -> Path:
    if found := _load_tool().installed_postgresql():
        return Path(found)
    if (UNPACKED / "postgresql" / "initdb").exists():
        return UNPACKED / "postgresql"
    raise ServerMissing("no postgresql on this machine; run: python3 tools/get_services.py")


def _load_tool() -> Any:
    """`tools/get_services.py` as a module: it knows what counts as installed."""
    name = "aiproject_get_services"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, CLONE / "tools" / "get_services.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _unprivileged_user() -> tuple[int, int]:
    for user in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(user)
            return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def _in_a_thread(make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine on a loop of its own, without disturbing the loop that pytest may have set here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()
