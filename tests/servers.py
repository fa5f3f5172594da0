"""Private RabbitMQ and PostgreSQL servers for tests: own ports, own directory, nothing left behind.

They run from Debian's packages as child processes, because a machine that runs tests need not have
containers. Where the packages are missing and we are root, they are installed without starting any service of
the system. `python -m tests.servers` starts both, prints their URLs and ends with Ctrl-C.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.clock import utc_now

T = TypeVar("T")
START_SECONDS = 90.0
STOP_SECONDS = 30.0
_RABBITMQ = "/usr/lib/rabbitmq/bin/"
_POLICY = Path("/usr/sbin/policy-rc.d")


class UnavailableError(Exception):
    """The server is neither named by the environment nor can it be started here."""


@dataclass(frozen=True)
class RabbitServer:
    """A running RabbitMQ: *url* (amqp://…/vhost) and, where its management API can be reached,
    *management*."""

    url: str
    management: str | None = None
    tls_url: str | None = None
    certificate: Path | None = None
    environment: dict[str, str] | None = None

    def control(self, *command: str) -> None:
        """Runs rabbitmqctl on the server; only on a private one."""
        if self.environment is None:
            raise UnavailableError("this needs a RabbitMQ of our own")
        program = [_RABBITMQ + "rabbitmqctl", *command]
        subprocess.run(program, env=self.environment, check=True, capture_output=True, timeout=START_SECONDS)

    def new_virtual_host(self) -> str:
        """The URL of a virtual host that nothing else uses. Needs the management API."""
        name = f"test-{secrets.token_hex(6)}"
        self.call("PUT", f"/api/vhosts/{name}", b"{}")
        user = urlsplit(self.url).username or "guest"
        everything = b'{"configure": ".*", "write": ".*", "read": ".*"}'
        self.call("PUT", f"/api/permissions/{name}/{quote(user)}", everything)
        return f"{self.url.rsplit('/', 1)[0]}/{name}"

    def drop_virtual_host(self, url: str) -> None:
        """Removes what `new_virtual_host` made."""
        self.call("DELETE", f"/api/vhosts/{url.rsplit('/', 1)[1]}")

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The answer of the management API."""
        if self.management is None:
            raise UnavailableError("set ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL, e.g. http://127.0.0.1:15672")
        parts = urlsplit(self.url)
        credentials = b64encode(f"{parts.username or 'guest'}:{parts.password or 'guest'}".encode()).decode()
        request = urllib.request.Request(self.management + path, data=body, method=method)
        request.add_header("Authorization", f"Basic {credentials}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
            return bytes(response.read())


@contextlib.contextmanager
def rabbitmq() -> Iterator[RabbitServer]:
    """The RabbitMQ that `ISR_HUB_TEST_RABBITMQ_URL` names, or a private one. Raises `UnavailableError`."""
    if url := os.environ.get("ISR_HUB_TEST_RABBITMQ_URL"):
        yield RabbitServer(url, os.environ.get("ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL"))
        return
    with contextlib.ExitStack() as stack:
        yield _entered(stack, _private_rabbitmq)


@contextlib.contextmanager
def _private_rabbitmq() -> Iterator[RabbitServer]:
    program = _program(_RABBITMQ + "rabbitmq-server", "rabbitmq-server")
    epmd = _program("/usr/bin/epmd", "rabbitmq-server")
    with tempfile.TemporaryDirectory(prefix="isr-hub-rabbitmq-") as name:
        directory = Path(name)
        amqp, amqps, web, distribution, mapper = free_ports(5)
        certificate, key = _self_signed(directory)
        (directory / "rabbit.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\n"
            f"listeners.ssl.1 = 127.0.0.1:{amqps}\n"
            f"ssl_options.cacertfile = {certificate}\nssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\nssl_options.verify = verify_none\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {web}\n"
            "log.file.level = warning\ndisk_free_limit.absolute = 50MB\n"
        )
        (directory / "plugins").write_text("[rabbitmq_management].\n")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,  # the Erlang cookie: nobody else's node can talk to ours
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"isr{secrets.token_hex(4)}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbit"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
        }
        server = RabbitServer(
            f"amqp://guest:guest@127.0.0.1:{amqp}/%2F",
            f"http://127.0.0.1:{web}",
            f"amqps://guest:guest@127.0.0.1:{amqps}/%2F",
            certificate,
            environment,
        )
        # Our own port mapper in the foreground: the one Erlang would start by itself outlives the server.
        with (
            _running(
                [epmd, "-port", str(mapper), "-address", "127.0.0.1"], environment, directory / "epmd.out"
            ),
            _running([program], environment, directory / "rabbit.out") as process,
        ):
            _await(process, directory / "rabbit.out", lambda: _speaks_amqp(server.url))
            _await(process, directory / "rabbit.out", lambda: bool(server.call("GET", "/api/vhosts")))
            yield server


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of the PostgreSQL that `ISR_HUB_TEST_POSTGRESQL_URL` names (its user may create databases), or
    of a private one. Raises `UnavailableError`."""
    if url := os.environ.get("ISR_HUB_TEST_POSTGRESQL_URL"):
        yield url
        return
    with contextlib.ExitStack() as stack:
        yield _entered(stack, _private_postgresql)


@contextlib.contextmanager
def _private_postgresql() -> Iterator[str]:
    postgres = _postgresql_program("postgres")
    initdb = _postgresql_program("initdb")
    as_root = os.geteuid() == 0
    user = "postgres" if as_root else getpass.getuser()  # PostgreSQL refuses to run as root
    run_as = {"user": user, "group": user, "extra_groups": []} if as_root else {}
    with tempfile.TemporaryDirectory(prefix="isr-hub-postgresql-") as name:
        directory = Path(name)
        if as_root:
            shutil.chown(directory, user, user)
        [port] = free_ports(1)
        data = directory / "data"
        environment = {"PATH": os.environ["PATH"], "HOME": name, "LANG": "C.UTF-8"}
        subprocess.run(
            [
                initdb,
                "--pgdata",
                data,
                "--username",
                "postgres",
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--no-sync",
            ],
            env=environment,
            cwd=name,
            check=True,
            capture_output=True,
            **run_as,
        )
        command = [postgres, "-D", str(data), "-p", str(port), "-k", name, "-c", "listen_addresses=127.0.0.1"]
        url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        # SIGINT is PostgreSQL's fast shutdown: SIGTERM would wait for every client to leave.
        log = directory / "postgresql.out"
        with _running(command, environment, log, signal.SIGINT, run_as) as process:
            _await(process, log, lambda: _speaks_postgresql(url))
            yield url


def _entered(stack: contextlib.ExitStack, server: Callable[[], contextlib.AbstractContextManager[T]]) -> T:
    """Starts *server*; again on other ports when somebody took one between our asking and its binding."""
    for _ in range(2):
        with contextlib.suppress(UnavailableError):
            return stack.enter_context(server())
    return stack.enter_context(server())


def driver_url(url: str) -> str:
    """*url* without SQLAlchemy's driver name, as psycopg itself reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def free_ports(count: int) -> list[int]:
    """*count* ports of the loopback address that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _self_signed(directory: Path) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1 that a client trusts by being given the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's RabbitMQ")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def _program(path: str, package: str) -> str:
    if not Path(path).exists():
        _install(package)
    return path


def _postgresql_program(name: str) -> str:
    for attempt in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
        if found:
            return str(found[-1])
        if attempt == 0:
            _install("postgresql")
    raise UnavailableError("the package postgresql brings no server")


def _install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UnavailableError(f"install {package}, or name a server in the environment")
    policy_is_ours = not _POLICY.exists()
    if policy_is_ours:  # what is installed must not start by itself
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{package} could not be installed") from error
    finally:
        if policy_is_ours:
            _POLICY.unlink()


@contextlib.contextmanager
def _running(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    stop: signal.Signals = signal.SIGTERM,
    run_as: dict[str, object] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # type: ignore[call-overload]  # run_as holds keywords of Popen
            command,
            env=environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is ours; and its children can be ended as one group
            start_new_session=True,
            **(run_as or {}),
        )
    try:
        yield process
    finally:
        # The group is ours alone: it holds what this command started.
        with contextlib.suppress(ProcessLookupError):
            if stop is signal.SIGTERM:
                os.killpg(process.pid, stop)
            else:
                process.send_signal(stop)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _await_group_gone(process.pid)


def _await_group_gone(group: int) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _await(process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _speaks_amqp(url: str) -> bool:
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def _speaks_postgresql(url: str) -> bool:
    try:
        psycopg.connect(driver_url(url)).close()
    except psycopg.OperationalError:
        return False
    return True


if __name__ == "__main__":
    with rabbitmq() as rabbit, postgresql() as database:
        print(f"ISR_HUB_TEST_RABBITMQ_URL={rabbit.url}")
        print(f"ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL={rabbit.management}")
        print(f"ISR_HUB_TEST_POSTGRESQL_URL={database}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
