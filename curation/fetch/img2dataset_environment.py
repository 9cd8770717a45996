"""The environment of its own that img2dataset needs: it wants other versions of pandas and webdataset than we do."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs
import uv

from schemas.errors import RunError

_PACKAGE = "img2dataset==1.47.0"


def img2dataset_python() -> Path:
    """The interpreter of an environment with img2dataset, made once per user of a machine. Raises RunError.

    It lies in the user's folder of caches and may be removed at any time; several workers wait for the one that makes
    it.
    """
    caches = platformdirs.user_cache_path("pairmill", appauthor=False) / "environments"
    caches.mkdir(parents=True, exist_ok=True)
    folder = caches / f"{_PACKAGE.replace('==', '-')}-{sys.implementation.cache_tag}"
    python, done = folder / "bin" / "python", folder / "done"
    with open(caches / f"{folder.name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and python.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(python), _PACKAGE)
        done.touch()
    return python


def _uv(*arguments: str) -> None:
    done = subprocess.run([uv.find_uv_bin(), "--quiet", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-500:]
        raise RunError(
            f"engine: img2dataset: an environment with {_PACKAGE} could not be made ({said}); it is installed from the "
            "package index that uv is told of (UV_DEFAULT_INDEX)"
        )
