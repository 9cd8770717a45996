"""A small web server that answers exactly what a test tells it to, well or badly, and counts who asked."""

import datetime
import ipaddress
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SITE_FILES = ("/robots.txt", "/.well-known/tdmrep.json")
Answer = bytes | Callable[[socket.socket, "Web"], None]


def answer(body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """A whole HTTP answer; `length` lies about the body's length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def redirect(location: str) -> bytes:
    """An answer that leads elsewhere."""
    return answer(b"", "302 Found", f"Location: {location}")


def dripping(connection: socket.socket, web: "Web") -> None:
    """A body that comes byte by byte and never ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not web.closed.wait(0.05):
        connection.sendall(b"x")


def silent(_connection: socket.socket, web: "Web") -> None:
    """No answer at all."""
    web.closed.wait(10)


def endless(connection: socket.socket, web: "Web") -> None:
    """Chunks without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not web.closed.is_set():
        connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def endless_headers(connection: socket.socket, web: "Web") -> None:
    """Headers without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not web.closed.is_set():
        connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def reset(connection: socket.socket, _web: "Web") -> None:
    """A connection that is torn down."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def certificate(folder: Path, name: str = "127.0.0.1", days: tuple[int, int] = (-1, 1)) -> Path:
    """A file with a key and its own certificate for an address, valid from so many days from now to so many."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin, end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day) for day in days)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    path = folder / "server.pem"
    path.write_bytes(private + signed.public_bytes(encoding))
    return path


class Web:
    """The server: `serve` says what a path answers, first, second, … time; the last answer stays."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None, raw: bytes | None = None
    ) -> None:
        """`raw` is sent to whoever connects, whatever it asks for."""
        self.closed = threading.Event()
        self.asked: Counter[str] = Counter()
        self.asked_first: Counter[str] = Counter()  # robots.txt and tdmrep.json
        self.heads: dict[str, str] = {}
        self.running = self.most_running = 0
        self._answers: dict[str, tuple[Answer, ...]] = {}
        self._lock = threading.Lock()
        self._tls, self._raw = tls, raw
        self._server = _Server((host, port), self._handler())
        self.host, self.port = host, self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, path: str, *answers: Answer) -> str:
        """Set what a path answers; gives its URL."""
        self._answers[path] = answers
        return self.url(path)

    def url(self, path: str, host: str | None = None) -> str:
        """The URL of a path."""
        return f"{'https' if self._tls else 'http'}://{host or self.host}:{self.port}{path}"

    def close(self) -> None:
        """Stop answering."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        web = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                web.answer_one(self.request)

        return Handler

    def answer_one(self, connection: socket.socket) -> None:
        """Read one request and answer it; whoever asked may be gone."""
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            if self._raw is not None:
                connection.recv(65536)
                connection.sendall(self._raw)
                return
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            path = head.split()[1].decode()
            with self._lock:
                counter = self.asked_first if path in SITE_FILES else self.asked
                counter[path] += 1
                self.heads[path] = head.decode("latin-1")
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                answers = self._answers.get(path, (answer(b"no such page", "404 Not Found"),))
                chosen = answers[min(counter[path], len(answers)) - 1]
            self._send(connection, chosen)
        except OSError:
            pass
        finally:
            connection.close()

    def _send(self, connection: socket.socket, chosen: Answer) -> None:
        try:
            if callable(chosen):
                chosen(connection, self)
            else:
                connection.sendall(chosen)
                if not self._tls:
                    connection.shutdown(socket.SHUT_WR)
                time.sleep(0)
        finally:
            with self._lock:
                self.running -= 1


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """The handler has closed the connection already."""
