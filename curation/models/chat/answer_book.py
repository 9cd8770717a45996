"""Answers that were paid for, kept in the store by what was asked: records answers/<aa>/<bb>/<sha256>.json.

Each is put if absent as soon as it comes, before its row goes on. So what a killed part has asked, what another
specification asks and what identical pictures ask again costs nothing; two workers that ask the same at the same
time may both pay, and both take the answer that was put first. A record per answer is a small file beside the price
of an answer; what would be cheaper to ask again than to keep can be removed with its folder.
"""

from dataclasses import asdict

from curation.models.chat.question import Answer
from curation.storage.store import Store


class AnswerBook:
    """The answers of one store. Safe to use from many threads and processes."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    def get(self, question: str) -> Answer | None:
        """The answer to what has that digest. Raises StoreError where its record is damaged."""
        found = None if self._store is None else self._store.get(_name(question))
        return None if found is None else Answer(**found)

    def put(self, question: str, answer: Answer) -> Answer:
        """Keep an answer; returns the one that stands. Raises StoreError where the disk is full."""
        if self._store is None or self._store.put(_name(question), asdict(answer)):
            return answer
        return self.get(question) or answer


def _name(question: str) -> str:
    return f"answers/{question[:2]}/{question[2:4]}/{question}.json"
