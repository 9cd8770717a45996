"""Components, exact grouping and `top`: CPU time and memory beside scipy and DuckDB, with equal results checked.

    python benchmarks/dedup_graph.py [components exact top] [--rows 5000000]

Goals: components in a third of scipy's time; exact grouping as quick as DuckDB's own GROUP BY with all memory, in 1 GB;
`top` in less time and memory than sorting all rows. The best of several rounds, ours and theirs in turn, so that other
load on the machine meets both. Time is CPU time of all threads; memory is the most that a process of its own holds
beyond its rows.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curation.dedup.components import roots, spanning_forest
from curation.dedup.exact import leaders_of_equal
from curation.selection.ordering import positions_in_order
from curation.selection.top import Top

ROUNDS = 3
Timed = tuple[str, float, float, Any]  # what, CPU seconds, MB beyond the rows, result


def main() -> None:
    """Print a table for each part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], metavar="components | exact | top")
    parser.add_argument("--rows", type=int, default=5_000_000)
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        print(f"\n{part}, {arguments.rows:,} rows")
        for case, ways in PARTS[part].items():
            _compare(case, ways, arguments.rows)


def _compare(case: str, ways: "dict[str, Way]", rows: int) -> None:
    """Every way in turn, in processes of their own; the first is the one that others are compared with."""
    context = multiprocessing.get_context("spawn")
    best: dict[str, tuple[float, float, float]] = {}
    for _ in range(ROUNDS):
        for name in ways:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_measured, args=(sender, case, name, rows))
            process.start()
            sender.close()  # so that a process that dies is an EOFError here
            best[name] = min(best.get(name, (np.inf, 0.0, 0.0)), receiver.recv())
            process.join()
    peer_s, _, peer_result = best[next(iter(ways))]
    for name, (cpu_s, memory_mb, result) in best.items():
        agrees = "" if result == peer_result else "   ANOTHER RESULT"
        print(f"  {case:14} {name:34} {cpu_s:6.2f} s {memory_mb:6.0f} MB   {peer_s / cpu_s:5.2f} times{agrees}")


def _measured(sender: Any, case: str, name: str, rows: int) -> None:
    """CPU seconds, MB beyond the rows, and a sum that tells results apart."""
    way = next(ways for part in PARTS.values() for known, ways in part.items() if known == case)[name]
    make = MADE[case]
    way(make(1000))  # what is compiled or loaded
    given = make(rows)
    before_kb, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    result_N = way(given)
    cpu_s = time.process_time() - started
    memory_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    sender.send((cpu_s, memory_mb, float((result_N * (1.0 + np.arange(len(result_N)) % 1009)).sum())))


Way = Callable[[Any], np.ndarray]
Edges = tuple[np.ndarray, np.ndarray, int]


def _random_edges(rows: int) -> Edges:
    left_P, right_P = np.random.default_rng(0).integers(0, rows, (2, rows))
    return left_P, right_P, rows


def _near_edges(rows: int) -> Edges:
    """Rows joined with others close by in rank: many small components."""
    random = np.random.default_rng(0)
    left_P = random.integers(0, rows - 1, rows)
    return left_P, np.minimum(left_P + random.integers(1, 50, rows), rows - 1), rows


def _by_scipy(edges: Edges) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left_P, right_P, nodes = edges
    graph = coo_matrix((np.ones(len(left_P), np.int8), (left_P, right_P)), (nodes, nodes)).tocsr()
    count, label_N = connected_components(graph, directed=False)
    lowest_C = np.full(count, nodes)
    lowest_C[label_N[::-1]] = np.arange(nodes)[::-1]  # the last one written is the lowest
    return np.asarray(lowest_C[label_N])


def _by_union_find(edges: Edges) -> np.ndarray:
    return roots([edges[:2]], edges[2])


def _by_forests(edges: Edges) -> np.ndarray:
    """Four jobs reduce their edges to forests, which are merged."""
    left_P, right_P, nodes = edges
    shares = zip(np.array_split(left_P, 4), np.array_split(right_P, 4), strict=True)
    return roots((block for share in shares for block in spanning_forest([share], nodes)), nodes)


def _numbers(rows: int) -> pa.Table:
    value_N = np.random.default_rng(0).integers(0, rows * 7 // 10, rows).astype(np.uint64)
    return pa.table({"value": value_N * np.uint64(0x9E3779B97F4A7C15)})


def _captions(rows: int) -> pa.Table:
    number_N = np.random.default_rng(0).integers(0, rows * 7 // 10, rows)
    with duckdb.connect() as connection:
        connection.register("numbers", pa.table({"n": number_N}))
        return connection.sql(
            "SELECT 'a caption of about fifty characters, number ' || n AS value FROM numbers"
        ).to_arrow_table()


def _by_group_by(table: pa.Table) -> np.ndarray:
    """DuckDB with all the memory that it wants."""
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("rows", table.append_column("rank", pa.array(np.arange(table.num_rows))))
        found = connection.sql(
            """SELECT rank, first FROM rows
               JOIN (SELECT value, min(rank) AS first FROM rows GROUP BY value) USING (value)"""
        ).fetchnumpy()
    first_N = np.empty(table.num_rows, np.int64)
    first_N[found["rank"]] = found["first"]
    return first_N


def _by_leaders(table: pa.Table) -> np.ndarray:
    return leaders_of_equal(table, np.arange(table.num_rows))


def _scores(rows: int) -> pa.Table:
    random, tables = np.random.default_rng(0), []
    for start in range(0, rows, 10_000):
        count = min(10_000, rows - start)
        digits = random.bytes(16 * count).hex()
        keys = [digits[32 * n : 32 * n + 32] for n in range(count)]
        score_N = (0.25 + 0.05 * random.standard_normal(count)).astype(np.float32)
        tables.append(pa.table({"key": keys, "by_0": score_N}))
    return pa.concat_tables(tables)


def _rounded_scores(rows: int) -> pa.Table:
    """Scores of two digits: hundreds of thousands at the threshold."""
    table = _scores(rows)
    return table.set_column(1, "by_0", pa.array(np.round(table["by_0"].to_numpy(), 2)))


def _by_sort(table: pa.Table) -> np.ndarray:
    order_N = positions_in_order(table, [("by_0", True)])
    kept_N = np.zeros(table.num_rows, np.bool_)
    kept_N[order_N[: 3 * table.num_rows // 10]] = True
    return kept_N


def _by_histograms(table: pa.Table) -> np.ndarray:
    return Top(by="score", fraction="0.3").decide(table).kept  # type: ignore[arg-type]


_COMPONENTS: dict[str, Way] = {"scipy": _by_scipy, "roots": _by_union_find, "forests of 4 jobs": _by_forests}
_EXACT: dict[str, Way] = {"DuckDB GROUP BY": _by_group_by, "leaders_of_equal": _by_leaders}
_TOP: dict[str, Way] = {"sort of all rows": _by_sort, "Top.decide": _by_histograms}
PARTS: dict[str, dict[str, dict[str, Way]]] = {
    "components": {"random edges": _COMPONENTS, "near edges": _COMPONENTS},
    "exact": {"numbers": _EXACT, "captions": _EXACT},
    "top": {"scores": _TOP, "rounded scores": _TOP},
}
MADE: dict[str, Callable[[int], Any]] = {
    "random edges": _random_edges,
    "near edges": _near_edges,
    "numbers": _numbers,
    "captions": _captions,
    "scores": _scores,
    "rounded scores": _rounded_scores,
}

if __name__ == "__main__":
    main()
