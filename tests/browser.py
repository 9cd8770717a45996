"""A real headless Chromium for tests of pages; installed from Debian's packages where it is missing."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
)  # fmt: skip
_LOCK = Path(tempfile.gettempdir()) / "pairmill-chromium.lock"
_INSTALL = (
    ["apt-get", "update"],
    ["apt-get", "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"],
)


@contextmanager
def browser(width_px: int = 1280, height_px: int = 900) -> Iterator[Chrome]:
    """A browser of its own, with a new profile, that is closed at the end."""
    _require_chromium()
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width_px},{height_px}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options=options, service=ChromeService(str(DRIVER)))
        driver.set_page_load_timeout(60)
        try:
            yield driver
        finally:
            driver.quit()


def _require_chromium() -> None:
    """Install it where it is missing; of several test workers only one does, and the others wait."""
    with open(_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if CHROMIUM.exists() and DRIVER.exists():
            return
        before = [] if os.geteuid() == 0 else ["sudo", "-n"]
        said = "there is no apt-get"
        for command in _INSTALL if shutil.which("apt-get") else ():
            done = subprocess.run(
                [*before, *command],
                capture_output=True,
                text=True,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            )
            said = done.stderr.strip()[-500:] if done.returncode else ""
        assert CHROMIUM.exists(), f"{CHROMIUM} is missing and could not be installed ({said}): apt-get install chromium"
        assert DRIVER.exists(), (
            f"{DRIVER} is missing and could not be installed ({said}): apt-get install chromium-driver"
        )
