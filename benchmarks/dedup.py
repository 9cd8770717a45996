"""All that `dedup` is measured by, one after the other: hashes, words, embeddings, components.

    python benchmarks/dedup.py [--small]

Each part runs by itself too (`dedup_hamming.py`, `dedup_text.py`, `dedup_semantic.py`, `dedup_graph.py`) and takes its
own arguments. Every part gives all peers the same data and checks that their pairs are the same.
"""

import argparse
import subprocess
import sys
from pathlib import Path

PARTS = {
    "dedup_hamming.py": ["--rows", "50000"],
    "dedup_text.py": ["--rows", "50000"],
    "dedup_semantic.py": ["--rows", "30000"],
    "dedup_graph.py": ["--rows", "200000"],
}


def main() -> None:
    """Run the parts; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few rows: does it run at all")
    small = parser.parse_args().small
    for name, few in PARTS.items():
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(name), *(few if small else [])], check=True)


if __name__ == "__main__":
    main()
