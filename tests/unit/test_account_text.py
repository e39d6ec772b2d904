"""Our words in an AdminComment, and those of others beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.slurm.account_text import beside, one_line

OLD = "mpsr: 1 fault: relaunched (incident 6b0dacf8-1)"
NEW = "mpsr: 2 faults: failed (incident 6b0dacf8-2)"
OTHERS = st.text(max_size=60).filter(lambda text: "mpsr: " not in text and text.strip())


@pytest.mark.parametrize(
    ("there", "then"),
    [
        ("", NEW),
        (OLD, NEW),
        ("billed to X", f"billed to X | {NEW}"),
        (f"billed to X | {OLD}", f"billed to X | {NEW}"),
        (f"{OLD},seen by Y", f"{NEW},seen by Y"),
        (f"a\n{OLD}\nb", f"a\n{NEW}\nb"),
        ("mpsr: the account of an older release", NEW),
        ("see mpsr: no account of ours", f"see mpsr: no account of ours | {NEW}"),
    ],
)
def test_only_what_we_said_before_is_replaced(there: str, then: str) -> None:
    assert beside(there, NEW) == then


@given(before=OTHERS, behind=OTHERS)
def test_words_of_others_stay_whatever_they_are(before: str, behind: str) -> None:
    first = beside(before, OLD)
    assert first == f"{before} | {OLD}"
    assert beside(first + behind, NEW) == f"{before} | {NEW}{behind}"


@given(st.text(max_size=3000))
def test_a_comment_is_one_short_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 1024


def test_what_it_is_known_by_is_not_cut_off() -> None:
    line = one_line(f"mpsr: {'x' * 3000} (incident 6b0dacf8-1)")
    assert (len(line), line.endswith("x (incident 6b0dacf8-1)")) == (1024, True)
    assert beside(line, NEW) == NEW
