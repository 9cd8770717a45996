"""A local web for benchmarks of fetching: nginx where it is installed, else the demo's server, in its own process."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from curation.fetch.http.certificates import certificates

_FILES = 500
_MEDIAN_BYTES, _SPREAD = 43_000, 1.38  # log-normal with a mean of 111 kB, as pictures on the web
_NGINX = """
worker_processes 1; worker_rlimit_nofile 20000; pid nginx.pid; daemon off; error_log stderr crit; {user}
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; keepalive_timeout 60;
  open_file_cache max=8000 inactive=600s; server_tokens off; default_type image/jpeg;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server {{ listen 0.0.0.0:{port} backlog=4096; root {root}; }}
  {more}
}}
"""
_TLS = """server {{ listen 0.0.0.0:{port} ssl backlog=4096; root {root};
    ssl_certificate server.pem; ssl_certificate_key server.key; ssl_session_cache off; ssl_session_tickets off; }}"""
_DEMO = "import sys, time; from pathlib import Path; from flows.demo_web.server import DemoServer\n"
_DEMO += "server = DemoServer(Path(sys.argv[1]), int(sys.argv[2])).start(); time.sleep(1e6)"


@dataclass(frozen=True)
class LocalWeb:
    """A running server; any address of 127.0.0.0/8 reaches it where it is nginx."""

    server: str
    port: int
    files: int
    hosts: tuple[str, ...]

    def urls(self, count: int) -> list[str]:
        """So many URLs over all hosts and files; every tenth does not exist."""
        chosen = np.random.default_rng(0).integers(0, self.files, count)
        return [
            f"http://{self.hosts[i % len(self.hosts)]}:{self.port}/{'gone' if i % 10 == 9 else file}.jpg?{i}"
            for i, file in enumerate(chosen)
        ]


@contextlib.contextmanager
def local_web(hosts: int = 8, median_bytes: int = _MEDIAN_BYTES) -> Iterator[LocalWeb]:
    """Serve random bytes of the sizes that pictures have, until the block ends."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    with tempfile.TemporaryDirectory(prefix="pairmill-web-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "files").mkdir()
        random = np.random.default_rng(1)
        for file, size in enumerate(median_bytes * random.lognormal(0, _SPREAD, _FILES)):
            (folder / "files" / f"{file}.jpg").write_bytes(random.bytes(min(int(size), 5_000_000)))
        port = _free_port()
        if nginx:
            user = "user root;" if os.geteuid() == 0 else ""
            (folder / "nginx.conf").write_text(_NGINX.format(port=port, user=user, root="files", more=""))
            command = [nginx, "-p", name, "-c", "nginx.conf"]
        else:
            command = [sys.executable, "-c", _DEMO, str(folder / "files"), str(port)]
        process = subprocess.Popen(command)
        try:
            _wait_for(port)
            addresses = tuple(f"127.0.1.{i + 1}" for i in range(hosts)) if nginx else ("127.0.0.1",)
            yield LocalWeb("nginx" if nginx else "the demo's server", port, _FILES, addresses)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class ServedFiles:
    """A folder under http and https; `ca_file` has the authority of its certificate beside the system's."""

    ports: dict[str, int]
    hosts: tuple[str, ...]
    ca_file: Path


@contextlib.contextmanager
def served(root: Path, hosts: int = 8) -> Iterator[ServedFiles]:
    """Serve a folder with nginx on the first core, until the block ends."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        raise SystemExit("this benchmark serves with nginx: install Debian's nginx-light")
    addresses = tuple(f"127.0.1.{i + 1}" for i in range(hosts))
    with tempfile.TemporaryDirectory(prefix="pairmill-web-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ca_file = _certify(folder, addresses)
        ports = {"http": _free_port(), "https": _free_port()}
        tls = _TLS.format(port=ports["https"], root=root.absolute())
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(_NGINX.format(port=ports["http"], user=user, root=root.absolute(), more=tls))
        core = str(sorted(os.sched_getaffinity(0))[0])
        process = subprocess.Popen(["taskset", "-c", core, nginx, "-p", name, "-c", "nginx.conf"])
        try:
            for port in ports.values():
                _wait_for(port)
            yield ServedFiles(ports, addresses, ca_file)
        finally:
            process.terminate()
            process.wait()


def _certify(folder: Path, addresses: tuple[str, ...]) -> Path:
    """Write a certificate for the addresses, and a file of authorities that has its own and the system's."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a web for benchmarks")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    names = [x509.IPAddress(ip_address(address)) for address in addresses]
    certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "server.pem").write_bytes(pem)
    plain = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    (folder / "server.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, plain[1], plain[0]))
    ca_file = folder / "authorities.pem"
    ca_file.write_bytes(Path(certificates()).read_bytes() + b"\n" + pem)
    return ca_file


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise SystemExit("the local web did not start")
