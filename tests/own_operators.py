"""A user's own operators that misbehave as a row's caption says, and specifications that use them.

kill            kills its worker, until the folder has a file `cured`
kill once       kills its worker the first time that the row is seen
raise           raises an exception
refuse          raises an error of ours, until the folder has a file `cured`
wrong type      returns a text where a number is declared
"""

from pathlib import Path
from typing import Any

from conftest import write_table

from schemas.manifest import read_manifest

TOUCHY = '''
import os, signal, time
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from curation.operator import Operator, Output, Resources, setting
from schemas.columns import CAPTION, Column
from schemas.errors import RunError

def once(path):
    """Whether nobody has been here before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

class Touchy(Operator):
    """Adds a number, and does to its worker what the caption says."""

    resources: ClassVar[Resources] = Resources(actor=ACTOR)
    batch_rows: ClassVar[int] = 4

    folder: str = setting("", "where it leaves marks")

    @property
    def reads(self):
        return (CAPTION,)

    @property
    def adds(self):
        return (Column("NAME_length", pa.int64(), "length of the caption"),)

    def open(self):
        with open(Path(self.folder) / "NAME.opened", "a") as log:
            log.write(f"{os.getpid()}\\n")

    def run(self, batch, opened):
        captions = batch["caption"].to_pylist()
        cured = (Path(self.folder) / "cured").exists()
        with open(Path(self.folder) / "NAME.seen", "a") as log:
            log.writelines(f"{caption}\\n" for caption in captions)
        for caption in captions:
            if caption.startswith("kill once"):
                if once(Path(self.folder) / caption):
                    os.kill(os.getpid(), signal.SIGKILL)
            elif caption.startswith("kill") and not cured:
                os.kill(os.getpid(), signal.SIGKILL)
            elif caption.startswith("refuse") and not cured:
                raise RunError("the caption refuses")
            elif caption.startswith("raise"):
                raise ZeroDivisionError("of no use")
            elif caption.startswith("sleep"):
                time.sleep(60)
        return Output({"NAME_length": ["much" if c.startswith("wrong") else len(c) for c in captions]})
'''


def own_operator(folder: Path, name: str = "touchy", *, actor: bool = False) -> dict[str, Any]:
    """Write an operator into folder/ops; return the step that uses it and leaves its marks in the folder."""
    (folder / "ops").mkdir(exist_ok=True)
    (folder / "ops" / f"{name}.py").write_text(TOUCHY.replace("NAME", name).replace("ACTOR", str(actor)))
    return {name: {"folder": str(folder)}}


def spec_of(folder: Path, captions: list[str], steps: list[Any], rows_per_part: int = 8) -> dict[str, Any]:
    """A specification over pairs that need no picture, with the operators in folder/ops."""
    rows = [{"url": f"http://nowhere/{n}", "caption": caption} for n, caption in enumerate(captions)]
    return {
        "name": "set",
        "store": str(folder / "store"),
        "source": {"table": write_table(folder / "pairs.parquet", rows), "rows_per_part": rows_per_part},
        "operators": [str(folder / "ops")],
        "steps": steps,
        "shards": {"format": "parquet", "rows": 10},
    }


def fate_of(manifest: Path) -> dict[str, tuple[str, str, str]]:
    """Caption → (fate, the step that decided, the reason up to the colon)."""
    import pyarrow.parquet as pq

    (sample,) = read_manifest(manifest).samples
    rows = pq.read_table(manifest.parent / sample.parquet).to_pylist()
    return {r["caption"]: (r["fate"], r["fate_step"] or "", (r["fate_reason"] or "").split(":")[0]) for r in rows}


def seen(folder: Path, name: str = "touchy") -> list[str]:
    """Captions that the operator was given, once for each time."""
    return (folder / f"{name}.seen").read_text().splitlines()


def opened(folder: Path, name: str = "touchy") -> list[str]:
    """Processes that opened the operator, once for each time."""
    return (folder / f"{name}.opened").read_text().splitlines()
