"""Private RabbitMQ and PostgreSQL servers: own ports, own folder, own passwords, nothing left running.

They run from Debian's packages as child processes, because a machine that tries the hub out need not have
containers. Where the packages are missing and we are root, they are installed without starting any service of
the system. For trying and testing: whoever runs the hub for real runs servers of their own.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from gateway.sandbox import last_will
from schemas.errors import BadSettings

T = TypeVar("T")
START_SECONDS = 90.0
# PostgreSQL's immediate shutdown, which gives shared memory back as SIGKILL would not: SIGTERM would wait for
# every client to leave, and SIGINT, its fast shutdown, writes to disk what nobody will read.
POSTGRESQL_STOP = signal.SIGQUIT
RABBITMQ_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_POLICY = Path("/usr/sbin/policy-rc.d")
_LOOPBACK = "127.0.0.1"
_FIRST_PORT, _PORTS = 20_000, 10_000  # Linux gives outgoing connections those from 32,768


@dataclass(frozen=True, slots=True)
class Rabbit:
    """A private RabbitMQ: *url* (amqp://…), *management* (its HTTP API), and the *environment* in which
    `rabbitmqctl` finds it.
    """

    url: str
    management: str
    environment: dict[str, str]


@contextlib.contextmanager
def private_servers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the URLs of a PostgreSQL and of a RabbitMQ: those that `ISR_HUB_DATABASE_URL` and
    `ISR_HUB_BROKER_URL` name, else of private ones below *folder*, which end with the context.

    Raises `BadSettings`, saying what to do, when a server is neither named nor can be started here.
    """
    database_url = os.environ.get("ISR_HUB_DATABASE_URL", "")
    broker_url = os.environ.get("ISR_HUB_BROKER_URL", "")
    with contextlib.ExitStack() as stack, ended_by_sigterm():
        if not database_url:
            database_url = stack.enter_context(postgresql(_made(folder / "servers" / "postgresql")))
        if not broker_url:
            broker_url = stack.enter_context(rabbitmq(_made(folder / "servers" / "rabbitmq"))).url
        yield database_url, broker_url


def rabbitmq(folder: Path, more: Iterable[str] = ()) -> AbstractContextManager[Rabbit]:
    """A private RabbitMQ with its management API, everything it writes below *folder*; *more* are further
    lines of its configuration. Raises `BadSettings`.
    """
    return _twice(lambda: _rabbitmq(folder, more))


@contextlib.contextmanager
def _rabbitmq(folder: Path, more: Iterable[str]) -> Iterator[Rabbit]:
    program = _program(RABBITMQ_PROGRAMS / "rabbitmq-server", "rabbitmq-server")
    epmd = _program(Path("/usr/bin/epmd"), "rabbitmq-server")
    amqp, web, distribution, mapper = free_ports(4)
    password = secrets.token_urlsafe(24)
    configuration = [
        f"listeners.tcp.1 = {_LOOPBACK}:{amqp}",
        f"management.tcp.ip = {_LOOPBACK}",
        f"management.tcp.port = {web}",
        "default_user = hub",
        f"default_pass = {password}",
        "log.file.level = warning",
        "disk_free_limit.absolute = 50MB",
        *more,
    ]
    _private_file(folder / "rabbit.conf", "\n".join(configuration) + "\n")
    _private_file(folder / "plugins", "[rabbitmq_management].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # the Erlang cookie: nobody else's node can talk to ours
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": _LOOPBACK,
        "RABBITMQ_NODENAME": f"isr{secrets.token_hex(4)}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbit"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }
    server = Rabbit(f"amqp://hub:{password}@{_LOOPBACK}:{amqp}/%2F", f"http://{_LOOPBACK}:{web}", environment)
    # Our own port mapper in the foreground: the one Erlang would start by itself outlives the server.
    with (
        _running([str(epmd), "-port", str(mapper), "-address", _LOOPBACK], environment, folder / "epmd.out"),
        # By SIGKILL: nothing of it is kept, and a graceful end takes six seconds.
        _running([str(program)], environment, folder / "rabbit.out") as process,
    ):
        _await(process, folder / "rabbit.out", lambda: _speaks_amqp(amqp) and _listens(web))
        yield server


def postgresql(folder: Path) -> AbstractContextManager[str]:
    """The URL of a private PostgreSQL whose user may create databases, its data below *folder*. Raises
    `BadSettings`.
    """
    return _twice(lambda: _postgresql(folder))


@contextlib.contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    postgres, initdb = _postgresql_program("postgres"), _postgresql_program("initdb")
    as_root = os.geteuid() == 0
    user = "postgres" if as_root else getpass.getuser()  # PostgreSQL refuses to run as root
    run_as: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if as_root else {}
    with contextlib.ExitStack() as stack:
        if as_root and not _is_reachable(folder, run_as):
            # Below a home folder that is closed to others the server's user cannot work.
            folder = stack.enter_context(last_will.temporary_folder("isr-hub-postgresql-"))
        if as_root:
            shutil.chown(folder, user, user)
        [port] = free_ports(1)
        password = secrets.token_urlsafe(24)
        _private_file(folder / "password", password)
        if as_root:
            shutil.chown(folder / "password", user, user)
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
        _initialise(initdb, folder, environment, run_as)
        command = [postgres, "-D", str(folder / "data"), "-p", str(port)]
        # No socket file: its path has room for a hundred characters only.
        for setting in (f"listen_addresses={_LOOPBACK}", "unix_socket_directories="):
            command += ["-c", setting]
        url = f"postgresql+psycopg://postgres:{password}@{_LOOPBACK}:{port}/postgres"
        log = folder / "postgresql.out"
        with _running(command, environment, log, POSTGRESQL_STOP, run_as) as process:
            _await(process, log, lambda: _speaks_postgresql(url))
            yield url


def _initialise(initdb: str, folder: Path, environment: dict[str, str], run_as: dict[str, Any]) -> None:
    # A first start that found its port taken leaves a folder that initdb would refuse.
    shutil.rmtree(folder / "data", ignore_errors=True)
    options = ["--username", "postgres", "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"]
    command = [initdb, "--pgdata", str(folder / "data"), "--pwfile", str(folder / "password"), *options]
    try:
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, **run_as)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace")[-500:]
        raise BadSettings(f"a private PostgreSQL could not be set up: {said}") from error


def _is_reachable(folder: Path, run_as: dict[str, Any]) -> bool:
    return subprocess.run(["test", "-x", folder], check=False, **run_as).returncode == 0


def driver_url(url: str) -> str:
    """*url* without SQLAlchemy's driver name, as psycopg itself reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def free_ports(count: int) -> list[int]:
    """*count* ports of the loopback address that nobody listens on now, below those that systems give to
    outgoing connections: one of these would keep a server from coming back after it was stopped.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            each = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # taken
                each.bind((_LOOPBACK, _FIRST_PORT + secrets.randbelow(_PORTS)))
                found.append(each.getsockname()[1])
    return found


@contextlib.contextmanager
def _twice(start: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Starts a server; again on other ports when somebody took one between our asking and its binding."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(start())
        except _NotStartedError:
            server = stack.enter_context(start())
        yield server


class _NotStartedError(BadSettings):
    """The server ended by itself or did not answer in time."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the context like Ctrl-C does, unless somebody handles it already: who asks for the end
    finds everything cleared up when it has come.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _private_file(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _program(path: Path, package: str) -> Path:
    if not path.exists():
        install(package)
        if not path.exists():  # another system's package puts it elsewhere
            raise BadSettings(_HOW.format(package))
    return path


def _postgresql_program(name: str) -> str:
    for attempt in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
        if found:
            return str(found[-1])
        if attempt == 0:
            install("postgresql")
    raise BadSettings(_HOW.format("postgresql"))


_HOW = (
    "{0} is needed here: install it (on Debian: apt-get install {0}), or name running servers in "
    "ISR_HUB_DATABASE_URL and ISR_HUB_BROKER_URL"
)


def install(package: str) -> None:
    """Installs Debian's *package*, of which nothing starts by itself. Raises `BadSettings`, saying how, when
    that may not be done or cannot be.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BadSettings(_HOW.format(package))
    policy_is_ours = not _POLICY.exists()
    if policy_is_ours:  # what is installed must not start by itself
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            # Another installation may be under way.
            options = ["-qq", "-o", "DPkg::Lock::Timeout=120"]
            subprocess.run(["apt-get", *options, *command], env=environment, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise BadSettings(f"apt-get could not install it. {_HOW.format(package)}") from error
    finally:
        if policy_is_ours:
            _POLICY.unlink()


@contextlib.contextmanager
def _running(
    command: Sequence[str],
    environment: dict[str, str],
    log: Path,
    stop: signal.Signals = signal.SIGKILL,
    run_as: dict[str, Any] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("wb") as output,
        last_will.running(
            command,
            stop,
            env=environment,
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            **(run_as or {}),
        ) as process,
    ):
        yield process


def _await(process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:]
            raise _NotStartedError(f"the private server did not start; it said:\n{said}")
        time.sleep(0.1)


def _speaks_amqp(port: int) -> bool:
    """Whether the server answers the protocol header (AMQP 0-9-1, 4.2.2) with a method; it listens last of
    all.
    """
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=START_SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_LOOPBACK, port), timeout=START_SECONDS).close()
    except OSError:
        return False
    return True


def _speaks_postgresql(url: str) -> bool:
    try:
        psycopg.connect(driver_url(url)).close()
    except psycopg.OperationalError:
        return False
    return True
