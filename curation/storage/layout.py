"""Where things lie under a store: names only, no reading and no writing.

store.json                             the format of the store
lock                                   shared by runs, exclusive for prune
tmp/                                   files that are being written
blobs/<aa>/<sha256><suffix>            every file with data in it, named by its content
pool/<n>.json                          the chain of ingest records: which parts the pool has
captures/<name>.json                   what was taken from one file of a source that brings images
snapshots/<digest>.json                a source: which rows of which parts are members
commits/<part>/<operator>-<fp>/<g>.json    one generation of a sidecar
crashes/<part>/<operator>-<fp>/<row>.json  a row that kills its worker
robots/<day>/<n>.json                  what sites said about robots and reserved rights on a day
joins/<digest>/<n>.json                pairs that a comparison of all rows has found, by its n-th threshold
captured/<digest>.json                 vectors that were computed once: the centroids of cells
plans/<plan>/...                       what barriers decided, which shards are written
forgotten/<n>.json                     requests to forget: tables of tombstones, who asked, when, why
purges/planned.json, purges/<n>.json    the purge that is under way, and what finished ones removed
runs/<n>.json, finished/<n>.json       runs in the order they started, and what they made
curated/<name>/...                     the finished data sets
"""

FORMAT = 1
OF_ROWS = ("pool", "snapshots", "captures", "commits", "plans", "robots")  # records list data that tells of rows
REFERRING = (*OF_ROWS, "crashes", "joins", "captured", "forgotten", "purges")  # records list any data


def blob(sha256: str, suffix: str) -> str:
    """A file with data in it."""
    return f"blobs/{sha256[:2]}/{sha256}{suffix}"


def ingest_record(number: int) -> str:
    """One link of the chain that is the pool."""
    return f"pool/{number:08d}.json"


def capture(digest: str) -> str:
    """What was taken from one file of a source that brings images."""
    return f"captures/{digest}.json"


def snapshot(digest: str) -> str:
    """The record of one source snapshot."""
    return f"snapshots/{digest}.json"


def sidecar(part: str, operator: str, fingerprint: str, generation: int) -> str:
    """The commit record of one generation of a sidecar."""
    return f"commits/{part}/{operator}-{fingerprint[:16]}/{generation:06d}.json"


def crash(part: str, operator: str, fingerprint: str, number: int) -> str:
    """The record of the n-th row of a part that killed its worker at an operator."""
    return f"crashes/{part}/{operator}-{fingerprint[:16]}/{number:06d}.json"


def robots(day: str, number: int) -> str:
    """The n-th record of what sites said on a day."""
    return f"robots/{day}/{number:06d}.json"


def pairs(join: str, number: int) -> str:
    """The record of the n-th search of a join for pairs."""
    return f"joins/{join}/{number:06d}.json"


def captured(name: str) -> str:
    """Vectors that were computed once, such as the centroids of cells."""
    return f"captured/{name}.json"


def plan(name: str, what: str) -> str:
    """A record under a plan's name."""
    return f"plans/{name}/{what}.json"


def forgotten(number: int) -> str:
    """One request to forget."""
    return f"forgotten/{number:08d}.json"


def purge(number: int) -> str:
    """What a finished purge removed."""
    return f"purges/{number:08d}.json"


def purge_planned() -> str:
    """The purge that is under way: only where it was killed does a reader see it."""
    return "purges/planned.json"


def run(number: int) -> str:
    """The record that a run has started."""
    return f"runs/{number:08d}.json"


def finished(number: int) -> str:
    """The record that a run has finished."""
    return f"finished/{number:08d}.json"


def curated(name: str, what: str) -> str:
    """A file of a curated set."""
    return f"curated/{name}/{what}"
