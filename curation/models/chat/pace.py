"""How fast a server may be asked: so many requests and tokens a minute, evenly, and pauses that it asks for."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Rate:
    """So many units a minute: what takes n of them keeps the next one waiting for n shares of a minute.

    Evenly, for servers measure a minute's limit over seconds. In no minute more begin than the limit and one.
    """

    per_minute: float
    free_at: float = 0.0  # by the clock of whoever asks

    def take(self, units: float) -> float:
        """Take units; when what takes them may begin."""
        begins = self.free_at
        self.free_at += units * 60 / self.per_minute
        return begins


class Pace:
    """When the next request may begin. One object for all requests of a worker.

    What a request takes in tokens is known once it is answered: until then it counts as the mean of those before it.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = Rate(requests_per_minute) if requests_per_minute else None
        self._tokens = Rate(tokens_per_minute) if tokens_per_minute else None
        self._clock = clock
        self._quiet_until = 0.0
        self._answers = self._tokens_of_answers = 0

    def admit(self, most_tokens: int) -> float:
        """Seconds until the rates let a request begin, which takes its turn by that.

        `most_tokens` counts where no answer is known.
        """
        now = self._clock()
        begins = now
        for rate, units in ((self._requests, 1.0), (self._tokens, self._expected(most_tokens))):
            if rate is not None:
                rate.free_at = max(rate.free_at, now)
                begins = max(begins, rate.take(units))
        return begins - now

    @property
    def quiet_s(self) -> float:
        """Seconds that a pause still lasts; 0 for none."""
        return max(0.0, self._quiet_until - self._clock())

    def answered(self, most_tokens: int, tokens: int) -> None:
        """A request that was admitted has taken so many tokens; 0 where it was not answered."""
        if self._tokens is not None:
            self._tokens.take(tokens - self._expected(most_tokens))
        if tokens:
            self._answers += 1
            self._tokens_of_answers += tokens

    def pause(self, seconds: float) -> None:
        """Let nothing begin for a while: the server asked for it."""
        self._quiet_until = max(self._quiet_until, self._clock() + seconds)

    def _expected(self, most_tokens: int) -> float:
        return self._tokens_of_answers / self._answers if self._answers else most_tokens
