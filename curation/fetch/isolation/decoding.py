"""Decoding of fetched pictures: one at a time as an attempt, or a stream of them through a decoder.

A decoder is what turns fetched bytes into pictures for one worker. `InlineDecoder` does it in this process,
`curation.fetch.isolation.isolated.IsolatedDecoder` in a child process that a hostile picture may kill.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Protocol, TypeVar

from curation.fetch.outcomes import DECODE_CRASH, DECODE_OOM, TOO_LARGE
from curation.fetch.pictures.to_stored import Stored
from schemas.pixels import DecodeError

MOST_BYTES = 128 * 2**20  # of one picture, as it came and as it is stored

Token = TypeVar("Token")
ToPicture = Callable[[bytes], Stored]
Prepare = Callable[[], object]  # loads and compiles all that a `ToPicture` will use
Arrivals = Iterator[tuple[Token, bytes | None] | None]


class Decoder(Protocol):
    """What decodes for one worker, one stream at a time."""

    def stream(self, arrivals: "Arrivals[Token]") -> Generator[tuple[Token, Stored | DecodeError | None], None, None]:
        """What becomes of each arrival (any token, and bytes to decode or None): exactly one answer for each.

        Answers to bytes come in the order of arrival, those to None at once. An arrival that is None itself says that
        nothing has arrived for a while: the moment to hand on what is ready.
        """

    def close(self) -> None:
        """Let go of what is held; a later stream begins anew."""


class InlineDecoder:
    """Decodes in this process and thread: quicker by a fraction of a millisecond, and without any protection."""

    def __init__(self, to_picture: ToPicture) -> None:
        self._to_picture = to_picture

    def stream(self, arrivals: "Arrivals[Token]") -> Generator[tuple[Token, Stored | DecodeError | None], None, None]:
        """Decode each as it arrives."""
        for arrival in arrivals:
            if arrival is not None:
                token, body = arrival
                yield token, None if body is None else attempt(self._to_picture, body)

    def close(self) -> None:
        """Nothing is held."""


def attempt(to_picture: ToPicture, body: bytes) -> Stored | DecodeError:
    """The picture, or why there is none, whatever `to_picture` raises."""
    if len(body) > MOST_BYTES:
        return DecodeError(f"the picture has {len(body)} bytes; at most {MOST_BYTES} are decoded", TOO_LARGE)
    try:
        stored = to_picture(body)
    except DecodeError as error:  # made anew: the traceback would keep half-decoded pictures alive
        return DecodeError(str(error), DECODE_OOM if isinstance(error.__cause__, MemoryError) else error.status)
    except MemoryError:
        return DecodeError("decoding the picture takes more memory than the decoder may have", DECODE_OOM)
    except Exception as error:
        return DecodeError(f"the decoder failed: {type(error).__name__}: {error}", DECODE_CRASH)
    if len(stored.bytes) > MOST_BYTES:
        return DecodeError(
            f"the stored picture would have {len(stored.bytes)} bytes, more than {MOST_BYTES}", TOO_LARGE
        )
    return stored
