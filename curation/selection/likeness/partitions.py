"""How values that outgrow memory are shared out among jobs: by how large they are, and by nothing of the machine."""

from collections.abc import Iterator

import pyarrow as pa

PARTITION_BYTES = 256 << 20  # of values in a job, which holds a few times as much
SHARE_BYTES = 32 << 20  # of rows in a job, which reach it with its task
MOST_RANGES = 2048  # each share knows where each range begins in it


def partition_bytes(whole_bytes: int) -> int:
    """How large a partition of so large values is: more than 256 MB only where they are larger than 512 GB."""
    return max(PARTITION_BYTES, -(-whole_bytes // MOST_RANGES))


def ranges_of(whole_bytes: int) -> int:
    """In how many ranges such values are collapsed, at least one."""
    return max(-(-whole_bytes // partition_bytes(whole_bytes)), 1)


def shares_of(column: pa.ChunkedArray) -> list[list[pa.Array]]:
    """The rows of a column in order, in shares of one or more slices that are not copied; at least one share."""
    shares: list[list[pa.Array]] = [[]]
    held_bytes = 0
    for piece in _pieces(column):
        if held_bytes and held_bytes + piece.nbytes > SHARE_BYTES:
            shares.append([])
            held_bytes = 0
        shares[-1].append(piece)
        held_bytes += piece.nbytes
    return shares if shares[0] else [[pa.array([], column.type)]]


def _pieces(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Slices that are no larger than a share, if their rows are of about the same size."""
    for chunk in column.chunks:
        rows = max(len(chunk) * SHARE_BYTES // max(chunk.nbytes, 1), 1)
        yield from (chunk.slice(start, rows) for start in range(0, len(chunk), rows))
