"""Pictures that conversations name: by path, by data: URL, or by key or URL in a curated set; videos as frames."""

import base64
import binascii
import hashlib
import json
import re
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from urllib.parse import unquote

import numpy as np

from schemas.errors import InputError, RunError
from schemas.pixels import DecodeError, require_within_limits
from schemas.shard import PICTURES
from training.curated_set import CuratedSet
from training.generative.conversations import Picture, Unfit, decoded
from training.stored_files import beside, is_url, manifests_of

_KEY = re.compile(r"[0-9a-f]{32}\Z")
_URL = re.compile(r"https?://")
_FRAMES = {".jpg", ".jpeg", ".png", ".webp"}

_FRAMES_PER_S = 3.0  # of a folder of frames, as MVBench's are

Clip = tuple[float, float]
"""From second to second of a video."""
Place = tuple[str, int, int]
"""A tar, and in it where a picture begins and how many bytes it has."""


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a file of conversations lie; `frames` are taken of a video, evenly spread."""

    folder: Path | None = None
    in_set: Mapping[str, Place] | None = None
    frames: int = 8

    def of(self, name: str, *, video: bool = False, clip_s: Clip | None = None) -> Picture:
        """The picture, or the video or a part of it; it is read later. Raises ValueError where none can be read."""
        if name.startswith("data:"):
            return Picture(f"data: URL {hashlib.sha256(name.encode()).hexdigest()[:12]}", partial(_inline, name))
        if in_set_by(name):
            if self.in_set is None:
                raise ValueError(f"the picture {name!r} is named by key or URL; say in which curated set it lies: set")
            return Picture(name, partial(_in_set, name, self.in_set.get(name)), video)
        path = self._path(name)
        return Picture(name, partial(_video, path, self.frames, clip_s) if video else partial(_file, path), video)

    def _path(self, name: str) -> Path:
        """The file of that name inside the folder; a file of conversations may come from strangers."""
        if self.folder is None:
            raise ValueError(f"the picture {name!r} is named by path; say in which folder it lies: images")
        pure = PurePath(unquote(name.removeprefix("file://")) if name.startswith("file://") else name)
        inside = pure.is_relative_to(self.folder) if pure.is_absolute() else bool(pure.parts)
        if not inside or ".." in pure.parts or "\0" in name:
            raise ValueError(f"the picture {name!r} does not lie in {self.folder}")
        return self.folder / pure


def in_set_by(name: str) -> bool:
    """Whether a name is a key or a URL, to be looked for in a curated set."""
    return bool(_KEY.match(name) or _URL.match(name))


def places_in_set(name: str, wanted: Collection[str]) -> dict[str, Place]:
    """Where the pictures with those keys or URLs lie in a curated set on this machine. Raises InputError, RunError.

    Only headers are read, and the columns where URLs are wanted. A URL with several captions has one picture.
    """
    found: dict[str, Place] = {}
    by_url = any(_URL.match(one) for one in wanted)
    for location in manifests_of(name):
        if is_url(location):
            raise InputError(f"data set {location}: pictures of instructions are read from this machine; copy it here")
        for shard in CuratedSet(location, {}).shards:
            tar = beside(location, str(shard.tar))
            for names, place in _pictures_of(tar, by_url):
                found |= {one: place for one in names if one in wanted and one not in found}
    return found


def _pictures_of(tar: str, by_url: bool) -> list[tuple[list[str], Place]]:
    """(key and URL, place) of the pictures in a shard."""
    keys: dict[str, Place] = {}
    urls: dict[str, str] = {}
    try:
        with tarfile.open(tar, "r:") as opened:
            for member in opened:
                key, _, extension = member.name.partition(".")
                if extension in PICTURES:
                    keys[key] = (tar, member.offset_data, member.size)
                elif extension == "json" and by_url and (stream := opened.extractfile(member)):
                    urls[key] = str(json.load(stream).get("url"))
    except (OSError, tarfile.TarError, ValueError) as error:
        raise RunError(f"{tar}: cannot be read: {error}; `pairmill verify` says what is damaged") from error
    return [([key, urls[key]] if key in urls else [key], place) for key, place in keys.items()]


def _inline(url: str) -> list[np.ndarray]:
    """The picture that a data: URL holds (RFC 2397), base64 as everybody writes them."""
    head, comma, data = url.partition(",")
    name = f"{url[:40]}…"
    if not comma or not head.endswith(";base64"):
        raise Unfit("broken", f"{name}: is no base64 data: URL")
    try:
        return [decoded(name, base64.b64decode(data, validate=True))]
    except binascii.Error as error:
        raise Unfit("broken", f"{name}: {error}") from error


def _in_set(name: str, place: Place | None) -> list[np.ndarray]:
    if place is None:
        raise Unfit("missing", f"{name}: the curated set has no such picture")
    tar, offset, length = place
    try:
        with open(tar, "rb") as stream:
            stream.seek(offset)
            return [decoded(name, stream.read(length))]
    except OSError as error:
        raise Unfit("missing", f"{name}: {tar} cannot be read: {error.strerror}") from error


def _file(path: Path) -> list[np.ndarray]:
    try:
        return [decoded(str(path), path.read_bytes())]
    except OSError as error:
        raise Unfit("missing", f"{path}: cannot be read: {error.strerror}") from error


def _video(path: Path, frames: int, clip_s: Clip | None) -> list[np.ndarray]:
    """Frames of a video: pictures in a folder in the order of their names, or a file that OpenCV reads."""
    if not path.exists():
        raise Unfit("missing", f"{path}: there is no such video")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _FRAMES)
        places = _places(len(files), _FRAMES_PER_S, frames, clip_s)
        found = [picture for place in places for picture in _file(files[place])]
    else:
        found = _frames_of_file(path, frames, clip_s)
    if not found:
        raise Unfit("broken", f"{path}: has no frames that can be read")
    height, width = found[0].shape[:2]
    if any(frame_HWC.shape[:2] != (height, width) for frame_HWC in found):
        raise Unfit("broken", f"{path}: its frames differ in size")
    return found


def _frames_of_file(path: Path, frames: int, clip_s: Clip | None) -> list[np.ndarray]:
    """Frames by OpenCV, which brings its decoders along; jumping in a video is inexact, so it is read through."""
    import cv2

    opened = cv2.VideoCapture(str(path))
    try:
        size = (int(opened.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        require_within_limits(*size)
        count, per_s = int(opened.get(cv2.CAP_PROP_FRAME_COUNT)), opened.get(cv2.CAP_PROP_FPS)
        wanted = set(_places(count, per_s, frames, clip_s))
        found = []
        for place in range(max(wanted, default=-1) + 1):
            if not opened.grab():
                break
            if place in wanted:
                read, frame_HWC = opened.retrieve()
                found += [cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB)] if read else []
        return found
    except DecodeError as error:
        raise Unfit("broken", f"{path}: {error}") from error
    finally:
        opened.release()


def _places(count: int, per_s: float, most: int, clip_s: Clip | None) -> list[int]:
    """Places of frames, evenly in all of a video, or between two seconds of it."""
    if clip_s is None:
        return evenly(count, most)
    first = min(max(0, round(clip_s[0] * per_s)), count)
    return [first + place for place in evenly(max(0, min(round(clip_s[1] * per_s), count) - first), most)]


def evenly(count: int, most: int) -> list[int]:
    """At most so many places out of `count`, each in the middle of its share."""
    taken = min(count, most)
    return [(2 * place + 1) * count // (2 * taken) for place in range(taken)]
