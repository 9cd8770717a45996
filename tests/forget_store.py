"""A small real store to forget in: pictures of a web on this machine, one set with dedup and one without."""

import http.server
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from conftest import run_job, textured_jpeg, write_table

from curation.job import Result
from curation.storage.store import Store
from schemas.manifest import Manifest, read_manifest

TWIN, CAPTIONED_AGAIN, ALIKE = 6, 7, 8  # of row 1: its picture elsewhere, its URL again; of row 0: a near duplicate


@dataclass
class CountingWeb:
    """Pictures by path, and how often each was asked for."""

    base_url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def put(self, path: str, body: bytes) -> str:
        """Serve a picture at a path; return its URL."""
        self.bodies[path] = body
        return f"{self.base_url}{path}"


@contextmanager
def counting_web() -> Iterator[CountingWeb]:
    """A web for as long as the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            web.asked[self.path] += 1
            body = web.bodies.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = CountingWeb(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield web
    server.shutdown()
    server.server_close()


@dataclass
class ForgetStore:
    """A store whose sets `set` (with dedup) and `plain` have been run once over the same nine rows."""

    root: Path
    web: CountingWeb
    rows: list[dict[str, Any]]
    table: str

    @property
    def store(self) -> Store:
        """The store itself."""
        return Store(self.root)

    def copied(self, root: Path) -> "ForgetStore":
        """The same store elsewhere; hard links stay hard links."""
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", self.root, root], check=True)
        return ForgetStore(root, self.web, self.rows, self.table)

    def spec(self, name: str, table: str | None = None) -> dict[str, Any]:
        """The specification of a set."""
        download = {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "isolate": False}}
        steps: list[Any] = [download, {"image_hash": {"kind": "phash"}}]
        steps += [{"caption_stats": {}, "as": "note", "reads": {"caption": "note"}}]
        steps += [{"dedup": {"by": "phash", "within": 4, "prefer": ["note"]}}] if name == "set" else []
        source = {"table": table or self.table, "rows_per_part": 5}
        return {
            "name": name, "store": str(self.root), "source": source, "steps": steps,
            "shards": {"rows": 3, "columns": ["phash", "note"]},
        }  # fmt: skip

    def run(self, name: str, table: str | None = None) -> Result:
        """Run a set, over other rows where a table is given."""
        return run_job(self.spec(name, table))

    def key(self, number: int) -> str:
        """The key of the n-th row."""
        import hashlib

        row = self.rows[number]
        return hashlib.sha256(f"{row['url']}\n{row['caption']}".encode()).hexdigest()[:32]

    def manifest(self, name: str) -> Manifest:
        """The newest manifest of a set."""
        return read_manifest(self.root / "curated" / name / "manifest.json")

    def samples(self, name: str) -> dict[str, dict[str, Any]]:
        """The newest samples of a set by key."""
        files = [self.root / "curated" / name / sample.parquet for sample in self.manifest(name).samples]
        return {row["key"]: row for file in files for row in pq.read_table(file).to_pylist()}

    def fates(self, name: str) -> dict[int, str]:
        """Fate and step of the rows by their numbers: `curated`, `dropped forget` …"""
        samples = self.samples(name)
        found = ((n, samples.get(self.key(n))) for n in range(len(self.rows)))
        return {n: f"{row['fate']} {row['fate_step']}".strip() for n, row in found if row is not None}

    def file(self, tmp_path: Path, *lines: str) -> str:
        """A file of lines."""
        path = tmp_path / "asked.txt"
        path.write_text("\n".join(lines) + "\n")
        return str(path)


def make_store(folder: Path, web: CountingWeb) -> ForgetStore:
    """Run both sets."""
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i)), "caption": f"a very secret caption {i}"} for i in range(6)]
    rows.append({"url": web.put("/twin.jpg", textured_jpeg(1)), "caption": "twin"})
    rows.append({"url": rows[1]["url"], "caption": "captioned again"})
    rows.append({"url": web.put("/alike.jpg", textured_jpeg(0, 144, 120)), "caption": "alike"})
    rows = [row | {"note": f"hidden note {i}"} for i, row in enumerate(rows)]
    made = ForgetStore(folder / "store", web, rows, write_table(folder / "pairs.parquet", rows))
    made.run("plain")
    made.run("set")
    return made
