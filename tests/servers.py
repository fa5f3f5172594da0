"""The servers of the tests that need real ones: named by the environment, else on their standard ports where
they let us in, else private ones from `gateway.sandbox.servers`.

`python -m tests.servers` starts both, prints their URLs and ends with Ctrl-C.
"""

import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.sandbox import last_will, servers
from gateway.sandbox.servers import RABBITMQ_PROGRAMS, START_SECONDS, driver_url, free_ports
from schemas.clock import utc_now
from schemas.errors import BadSettings as UnavailableError

__all__ = ["RabbitServer", "UnavailableError", "driver_url", "free_ports", "postgresql", "rabbitmq"]

MARK = "ISR_HUB_TEST_SESSION"  # in the environment of a run's processes, and in the names of its folders
MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30
_STANDARD_RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/%2F", "http://127.0.0.1:15672"
_STANDARD_POSTGRESQL = (
    "postgresql+psycopg:///postgres",  # whatever PGHOST, PGUSER and the like say
    "postgresql+psycopg://postgres:postgres@127.0.0.1:5432/postgres",
)


@dataclass(frozen=True)
class RabbitServer:
    """A running RabbitMQ: *url* (amqp://…/vhost) and, where its management API can be reached,
    *management*."""

    url: str
    management: str | None = None
    tls_url: str | None = None
    certificate: Path | None = None
    environment: dict[str, str] | None = None

    def control(self, *command: str) -> bytes:
        """What rabbitmqctl says when it is run on the server; only on a private one."""
        if self.environment is None:
            raise UnavailableError("this needs a RabbitMQ of our own")
        program = [str(RABBITMQ_PROGRAMS / "rabbitmqctl"), *command]
        done = subprocess.run(
            program, env=self.environment, check=True, capture_output=True, timeout=START_SECONDS
        )
        return done.stdout

    @contextlib.contextmanager
    def virtual_host(self) -> Iterator[str]:
        """The URL of a virtual host that nothing else uses; it goes with the context. Needs the management
        API."""
        name = f"test-{secrets.token_hex(6)}"
        self.call("PUT", f"/api/vhosts/{name}", b"{}")
        try:
            user = urlsplit(self.url).username or "guest"
            everything = b'{"configure": ".*", "write": ".*", "read": ".*"}'
            self.call("PUT", f"/api/permissions/{name}/{quote(user)}", everything)
            yield f"{self.url.rsplit('/', 1)[0]}/{name}"
        finally:
            self.call("DELETE", f"/api/vhosts/{name}")

    def close_connections(self, url: str) -> None:
        """Has the server close every connection to the virtual host of *url*, at least one; its list of them
        lags behind."""
        host, cut = url.rsplit("/", 1)[1], 0
        deadline = time.monotonic() + START_SECONDS
        while not cut and time.monotonic() < deadline:
            for connection in json.loads(self.call("GET", f"/api/vhosts/{host}/connections")):
                with contextlib.suppress(urllib.error.HTTPError):  # gone meanwhile
                    self.call("DELETE", f"/api/connections/{quote(connection['name'])}")
                    cut += 1

    def virtual_hosts(self) -> set[str]:
        """The names of its virtual hosts. Needs the management API."""
        return {host["name"] for host in json.loads(self.call("GET", "/api/vhosts"))}

    def users(self) -> set[str]:
        """The names of its users. Needs the management API."""
        return {user["name"] for user in json.loads(self.call("GET", "/api/users"))}

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
    """The RabbitMQ that is named or found, or a private one. Raises `UnavailableError`."""
    if found := found_rabbitmq():
        yield found
        return
    with private_rabbitmq() as server:
        yield server


@functools.cache
def found_rabbitmq() -> RabbitServer | None:
    """The RabbitMQ that `ISR_HUB_TEST_RABBITMQ_URL` names; else the one on the standard ports whose user
    guest may make virtual hosts."""
    if url := os.environ.get("ISR_HUB_TEST_RABBITMQ_URL"):
        return RabbitServer(url, os.environ.get("ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL"))
    server = RabbitServer(*_STANDARD_RABBITMQ)
    try:
        told = json.loads(server.call("GET", "/api/whoami"))
    except (OSError, ValueError):
        return None
    return server if "administrator" in told["tags"] else None


@functools.cache
def found_postgresql() -> str | None:
    """The PostgreSQL that `ISR_HUB_TEST_POSTGRESQL_URL` names; else the one on the standard port, or where
    libpq's variables point, if it lets us make databases."""
    if url := os.environ.get("ISR_HUB_TEST_POSTGRESQL_URL"):
        return url
    for url in _STANDARD_POSTGRESQL:
        try:
            with psycopg.connect(driver_url(url), connect_timeout=2) as connection:
                row = connection.execute(
                    "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
                ).fetchone()
        except psycopg.Error:
            continue
        if row and row[0]:
            return url
    return None


@contextlib.contextmanager
def private_rabbitmq() -> Iterator[RabbitServer]:
    """A RabbitMQ that nobody else uses, so that it may be stopped. Raises `UnavailableError`."""
    with _folder("rabbitmq") as folder:
        [amqps] = free_ports(1)
        certificate, key = _self_signed(folder)
        tls = [
            f"listeners.ssl.1 = 127.0.0.1:{amqps}",
            f"ssl_options.cacertfile = {certificate}",
            f"ssl_options.certfile = {certificate}",
            f"ssl_options.keyfile = {key}",
            "ssl_options.verify = verify_none",
        ]
        with servers.rabbitmq(folder, tls) as server:
            credentials = urlsplit(server.url).netloc.partition("@")[0]
            tls_url = f"amqps://{credentials}@127.0.0.1:{amqps}/%2F"
            yield RabbitServer(server.url, server.management, tls_url, certificate, server.environment)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of the PostgreSQL that is named or found, whose user may create databases, or of a private one.
    Raises `UnavailableError`."""
    if url := found_postgresql():
        yield url
        return
    with private_postgresql() as url:
        yield url


def is_private(url: str) -> bool:
    """Whether the PostgreSQL at *url*, as `postgresql` gave it, is a private one."""
    return url != found_postgresql()


@contextlib.contextmanager
def private_postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL that nobody else uses, so that it may be stopped. Raises `UnavailableError`."""
    with _folder("postgresql") as folder, servers.postgresql(folder) as url:
        yield url


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    # In memory where there is room: tests end processes, not the power, and the disk is what they wait for.
    has_room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > _ROOM
    prefix = f"isr-hub-{name}-{os.environ.get(MARK, '')}-"
    with last_will.temporary_folder(prefix, MEMORY if has_room else None) as path:
        path.chmod(0o711)  # PostgreSQL, which refuses to run as root, must get through
        yield path


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


if __name__ == "__main__":
    with rabbitmq() as rabbit, postgresql() as database:
        print(f"ISR_HUB_TEST_RABBITMQ_URL={rabbit.url}")
        print(f"ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL={rabbit.management}")
        print(f"ISR_HUB_TEST_POSTGRESQL_URL={database}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
