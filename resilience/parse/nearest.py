"""The way out of a misspelt word: the valid one that is nearest to it."""

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str:
    """The most similar of `known`, from 0 (nothing in common) to 1 (the same) at least `likeness`; empty for none."""
    import difflib  # only whoever errs pays for it: a prolog has no time to give away

    match = difflib.get_close_matches(word, tuple(known), 1, likeness)
    return match[0] if match else ""


def hint(word: str, known: Iterable[str], otherwise: str, likeness: float = 0.5) -> str:
    """`did you mean …?`, or `otherwise` when nothing known is near."""
    match = nearest(word, known, likeness)
    return f"did you mean {match}?" if match else otherwise
