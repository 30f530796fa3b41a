"""Retrieval: which passage a question is about, judged by its words alone.

BM25 (Robertson & Zaragoza 2009; in Lucene's variant, k1 = 1.5, b = 0.75) scores a passage by the question's words that
stand in it: rare ones count more, repetitions less and less, long passages are marked down. It knows no synonyms and
needs no model, no training and no network, which makes it the bar that knowledge in weights has to clear. English
function words are left out; words are not stemmed.

    place, = nearest(["When did Otrar fall?"], ["Otrar\\nIt fell in 1219.", "Belmora\\nIt lies by the sea."])

Needs `pip install 'selfedit[retrieval]'`.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfedit.errors import from_extra


def nearest(queries_N: Sequence[str], texts_P: Sequence[str]) -> list[int]:
    """Return the place in `texts_P` of the best text for each query, [N].

    Of equals it is the first; a query that shares no word with any text gets the first of all. Raises `ValueError` if
    there is no text, `MissingExtra` where the library is missing.
    """
    with from_extra("retrieval", "retrieval"):
        import bm25s
    if not texts_P:
        raise ValueError("there is no text to retrieve")
    words_P, words_N = _words(texts_P), _words(queries_N)
    if not any(words_P):
        return [0] * len(words_N)
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index(words_P, show_progress=False)
    return [int(index.get_scores(words).argmax()) if words else 0 for words in words_N]


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    words: list[list[str]] = bm25s.tokenize(
        list(texts), token_pattern=r"(?u)\b\w+\b", return_ids=False, show_progress=False
    )
    return words
