"""A small set with pictures, signals and vectors to explore, made by a real run over a folder of pictures."""

import json
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from conftest import run_job, textured_jpeg

from curation.analytics.explorer.serving import Served, served
from curation.job import Result

ROWS = 48
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
RTL = "كلب أحمر ‮reversed"
STEPS: list[Any] = [
    "inspect_image",
    {"keep": "score IS NOT NULL", "id": "scored"},
    {"top": {"by": "score", "fraction": 0.75, "per": "colour"}, "id": "best"},
]
_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def photos(folder: Path) -> Path:
    """Pictures with captions, a score that has ties and is not everywhere, and a colour; one picture is broken."""
    folder.mkdir(parents=True)
    draw, lines = random.Random(7), []
    for number in range(ROWS):
        jpeg = textured_jpeg(number, 96 + number, 80)
        (folder / f"{number}.jpg").write_bytes(jpeg[:300] if number == 5 else jpeg)
        caption = {0: HOSTILE, 1: RTL}.get(number, f"A {'Dog' if number % 3 else 'cat'} number {number}")
        score = None if number % 11 == 10 else draw.randrange(10) / 10
        colour = ["red", "green", None, "blue"][number % 4]
        line = {"file": f"{number}.jpg", "caption": caption, "score": score, "colour": colour}
        hostile = {"label": "ab"[number % 2], "row": -number, "rowid": -number, "wanted": 1, 'x" onload="a': number % 3}
        lines.append(line | hostile)  # names that our own SQL uses
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def spec_of(root: Path, steps: list[Any] = STEPS, name: str = "set") -> dict[str, Any]:
    """A specification over the pictures; its store lies beside them."""
    source = {"folder": str(root / "photos")}
    return {"name": name, "store": str(root / "store"), "source": source, "steps": steps, "shards": {"rows": 20}}


def run(root: Path, steps: list[Any] = STEPS, name: str = "set") -> Result:
    """Run it."""
    if not (root / "photos").exists():
        photos(root / "photos")
    return run_job(spec_of(root, steps, name))


def model_folder(folder: Path) -> str:
    """A CLIP model of the smallest kind with random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    save_file(open_clip.CLIP(**_CONFIG).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": _CONFIG, "preprocess_cfg": preprocess}))
    return str(folder)


@contextmanager
def running(store: Path, name: str | None = None) -> Iterator[Served]:
    """The page, served by a thread of this process."""
    with served(store, name) as page:
        thread = threading.Thread(target=page.run, kwargs={"opens_browser": False}, daemon=True)
        thread.start()
        try:
            yield page
        finally:
            page.server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


class Client:
    """Asks the page's server as a browser would that has its cookie."""

    def __init__(self, page: Served) -> None:
        self.port = page.listening.getsockname()[1]
        self.token = page.address.partition("token=")[2]
        self.headers = {"Host": f"127.0.0.1:{self.port}", "Cookie": f"pairmill-{self.port}={self.token}"}

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body; `headers` replace the usual ones."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in (self.headers if headers is None else headers).items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def ask(self, name: str, wish: Mapping[str, Any] | None = None) -> Any:
        """The answer to a question as JSON; what is wrong with it as its `error`."""
        method, body = ("GET", None) if wish is None else ("POST", json.dumps(wish).encode())
        status, _, answer = self.send(method, f"/api/{name}", body)
        found = json.loads(answer)
        assert (status == 200) == (not isinstance(found, dict) or "error" not in found), answer
        return found
