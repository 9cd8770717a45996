"""DocVQA: questions about scanned pages, scored by ANLS; `measures/anls.py` tells the files and the rules.

Results are those of the challenge: [{"questionId", "answer"}]. `--official` changes nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from training.evaluate.measures.anls import document_entry as entry
from training.evaluate.measures.anls import document_questions as questions
from training.evaluate.measures.anls import score_documents
from training.evaluate.zeroshot import Scores

__all__ = ["entry", "questions", "score"]


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Mean ANLS, and by kind of question where the file says it. Raises InputError."""
    return score_documents(annotations, predictions)
