"""The servers of the tests that need real ones: named by the environment, else private ones from
`gateway.sandbox.servers`. `python -m tests.servers` starts both, prints their URLs and ends with Ctrl-C.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.sandbox import servers
from gateway.sandbox.servers import RABBITMQ_PROGRAMS, START_SECONDS, driver_url, free_ports
from schemas.clock import utc_now
from schemas.errors import BadSettings as UnavailableError

__all__ = ["RabbitServer", "UnavailableError", "driver_url", "free_ports", "postgresql", "rabbitmq"]


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
        program = [str(RABBITMQ_PROGRAMS / "rabbitmqctl"), *command]
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
    """The RabbitMQ that `ISR_HUB_TEST_RABBITMQ_URL` names, or a private one. Raises `UnavailableError`."""
    if url := os.environ.get("ISR_HUB_TEST_RABBITMQ_URL"):
        yield RabbitServer(url, os.environ.get("ISR_HUB_TEST_RABBITMQ_MANAGEMENT_URL"))
        return
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
    """The URL of the PostgreSQL that `ISR_HUB_TEST_POSTGRESQL_URL` names (its user may create databases), or
    of a private one. Raises `UnavailableError`."""
    if url := os.environ.get("ISR_HUB_TEST_POSTGRESQL_URL"):
        yield url
        return
    with _folder("postgresql") as folder, servers.postgresql(folder) as url:
        yield url


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"isr-hub-{name}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


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
