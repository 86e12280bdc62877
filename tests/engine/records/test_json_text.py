"""How deeply a text nests: the native search against the reference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saker.engine.kernels import native
from saker.engine.records.json_text import too_deep

TEXTS = st.text(st.sampled_from('[]{}"\\\\aé'), max_size=60).map(str.encode)


@given(st.one_of(TEXTS, st.binary()), st.integers(0, 5))
def test_the_native_search_finds_what_the_reference_finds(data: bytes, most: int) -> None:
    extension, reason = native("auto")
    assert extension is not None, reason
    assert extension.too_deep(data, most) == too_deep(data, most)


def test_brackets_in_strings_do_not_count() -> None:
    assert too_deep(b'[{"[[[[":"\\"[[["}]', 2) == -1
    assert too_deep(b'[{"a":["', 2) == 6
    assert too_deep(b'["[[[', 1) == -1
