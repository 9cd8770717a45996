"""Levenshtein's distance: how many letters are put in, taken out or changed between two texts."""


def edit_distance(a: str, b: str) -> int:
    """The least number of edits that turn `a` into `b`; time grows with the product of the lengths."""
    if len(a) < len(b):
        a, b = b, a
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            cost = diagonal if letter == other else 1 + min(diagonal, row[j], row[j - 1])
            diagonal, row[j] = row[j], cost
    return row[-1]
