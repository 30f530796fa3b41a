"""HTML and PDF: what is kept, where headings come from, what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from selfedit.errors import InputError
from selfedit.sources.documents import read_folder
from selfedit.sources.formats import Page, read_page
from selfedit.sources.splitting import split_document


def page_of(folder: Path, name: str, content: str | bytes) -> Page:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_page(path)


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        page_of(folder, name, content)
    message = str(caught.value)
    assert repr(str(folder / name)) in message
    assert "\n" not in message
    return message


# ── HTML ──

SITE = """<!DOCTYPE html>
<html><head><title>Guide | Acme</title><style>p {}</style><script>let x</script></head>
<body>
<nav><a href="/">Home</a></nav>
<div role="navigation">Menu</div>
<h1>The guide<a class="headerlink" href="#guide">¶</a></h1>
<p>Read <b>this</b> <a href="https://example.com">chapter</a> of snake_case.</p>
<h2>Install</h2>
<pre><code># as root
make *all*
</code></pre>
<h3>Linux</h3>
<ul><li>one</li><li>two</li></ul>
<table><tr><th>Key</th><th>Value</th></tr><tr><td>a</td><td>1</td></tr></table>
<!-- a comment -->
<div hidden>unseen</div>
<footer>© Acme</footer>
</body></html>"""

SITE_TEXT = """Read **this** chapter of snake_case.

## Install

```
# as root
make *all*
```

### Linux

- one
- two

| Key | Value |
| --- | --- |
| a | 1 |"""


def test_html_becomes_markdown_without_what_stands_around_the_page(tmp_path: Path) -> None:
    assert page_of(tmp_path, "a.html", SITE) == Page("The guide", SITE_TEXT)


def test_an_html_page_is_cut_at_its_headings(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(SITE)
    (task,) = read_folder(tmp_path).tasks
    assert (task.id, task.title) == ("a.html", "The guide")
    pieces = split_document(task.context, task.title, lambda text: len(text) <= 110)
    assert [piece.title for piece in pieces] == [
        "The guide",
        "The guide — Install",
        "The guide — Install — Linux",
    ]


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("<title>Of the\n page</title><p>text</p>", "Of the page"),
        ("<title>Page</title><p>intro</p><h2>Section</h2><p>text</p>", "Page"),
        ("<p>text</p>", ""),
    ],
)
def test_without_a_top_heading_the_title_is_the_pages(tmp_path: Path, content: str, title: str) -> None:
    assert page_of(tmp_path, "a.htm", content).title == title


def test_only_the_main_part_is_read_where_the_page_names_one(tmp_path: Path) -> None:
    page = "<div>Login</div><main><p>The text.</p></main><div>Adverts</div>"
    assert page_of(tmp_path, "a.html", page).text == "The text."
    assert page_of(tmp_path, "a.html", "<main></main><p>Outside.</p>").text == "Outside."


@pytest.mark.parametrize(
    "content",
    [
        '<meta charset="iso-8859-1"><p>café</p>'.encode("latin-1"),
        '<?xml version="1.0" encoding="windows-1252"?><html><p>café</p></html>'.encode("cp1252"),
        "<p>café</p>".encode(),
        "\ufeff<p>café</p>".encode(),
        "\ufeff<p>café</p>".encode("utf-16-le"),
        '<meta charset="no-such"><p>café</p>'.encode(),
    ],
)
def test_html_is_read_in_the_encoding_that_it_declares(tmp_path: Path, content: bytes) -> None:
    assert page_of(tmp_path, "a.html", content).text.endswith("café")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "holds no text to read"),
        ("<html><body><script>app()</script></body></html>", "holds no text to read"),
        ("<div>" * 3000 + "x", "is damaged"),
        ("one <![x two", "is damaged"),
        (b"<p>caf\xe9</p>", "is not UTF-8 text: see line 1"),
        (b'<meta charset="ascii">\n<p>caf\xe9</p>', "is not ASCII text: see line 2"),
        (b"<p>\0\0</p>", "holds a NUL byte"),
    ],
)
def test_html_that_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes, what: str) -> None:
    assert what in refusal(tmp_path, "a.html", content)


@pytest.mark.parametrize(
    "content",
    [
        "<p>one<p>two</div></b>",
        "<b><i>one</b> two",
        "one < two",
        "<![if !vml]>one<![endif]> two",
        '<?xml version="1.0"?><!DOCTYPE html><html><p>one <![CDATA[two]]></html>',
    ],
)
def test_markup_with_mistakes_is_read_all_the_same(tmp_path: Path, content: str) -> None:
    assert re.findall(r"\w+", page_of(tmp_path, "a.html", content).text) == ["one", "two"]


WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "3.5", "km"]), min_size=1, max_size=6).map(" ".join)
ELEMENTS = st.tuples(st.sampled_from(["h2", "h3", "p", "pre", "li", "blockquote", "td", "div", "span"]), WORDS)


@given(elements=st.lists(ELEMENTS, min_size=1, max_size=10))
def test_no_word_of_a_page_is_lost_and_their_order_is_kept(
    elements: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = "<h1>Top</h1>" + "\n".join(f"<{tag}>{words}</{tag}>" for tag, words in elements)
    page = page_of(tmp_path_factory.getbasetemp(), "page.html", source)
    assert page.title == "Top"
    assert re.findall(r"[\w.]+", page.text) == " ".join(words for _, words in elements).split()


# ── PDF ──


def pdf_of(*pages_P: Sequence[str]) -> bytes:
    """Write a PDF by hand: a page for each list of lines, in Helvetica."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    for lines in pages_P:
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 12 Tf 50 700 Td {shown}ET".encode("latin-1")
        refers = f"/Contents {len(objects) + 2} 0 R /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] {refers} >>".encode())
        objects.append(f"<< /Length {len(stream)} >>\nstream\n".encode() + stream + b"\nendstream")
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages_P)))
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages_P)} >>".encode()
    content, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj\n".encode() + each + b"\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    tail = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    return content + head.encode() + tail.encode()


def saved(writer: PdfWriter) -> bytes:
    content = BytesIO()
    writer.write(content)
    return content.getvalue()


def with_bookmarks(content: bytes) -> PdfWriter:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(content)))
    chapter = writer.add_outline_item(title="Setting up", page_number=0)
    writer.add_outline_item(title="On Linux", page_number=0, parent=chapter)
    writer.add_outline_item(title="Use", page_number=1)
    return writer


BOOK = pdf_of(["A preface.", "1 Setting up", "Run make.", "1.1 On Linux", "Run apt."], ["Call it."])


def test_a_pdfs_pages_become_text_in_their_order(tmp_path: Path) -> None:
    assert page_of(tmp_path, "a.pdf", pdf_of(["One.", "Two."], ["Three."])) == Page("", "One.\nTwo.\n\nThree.")


def test_a_pdfs_bookmarks_become_headings_in_their_places(tmp_path: Path) -> None:
    text = page_of(tmp_path, "a.pdf", saved(with_bookmarks(BOOK))).text
    assert [line for line in text.split("\n") if line.strip()] == [
        "A preface.",
        "## Setting up",
        "Run make.",
        "### On Linux",
        "Run apt.",
        "## Use",
        "Call it.",
    ]


def test_a_pdf_is_cut_at_its_bookmarks(tmp_path: Path) -> None:
    (tmp_path / "book.pdf").write_bytes(saved(with_bookmarks(BOOK)))
    (task,) = read_folder(tmp_path).tasks
    pieces = split_document(task.context, task.title, lambda text: len(text) <= 60)
    assert [piece.title for piece in pieces] == [
        "Book",
        "Book — Setting up",
        "Book — Setting up — On Linux",
        "Book — Use",
    ]


@pytest.mark.parametrize(
    ("given", "title"),
    [("The Handbook", "The Handbook"), ("Microsoft Word - a.doc", ""), ("untitled", ""), ("a.docx", ""), (" ", "")],
)
def test_a_pdfs_title_is_its_authors_not_its_programs(tmp_path: Path, given: str, title: str) -> None:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdf_of(["text"]))))
    writer.add_metadata({"/Title": given})
    assert page_of(tmp_path, "a.pdf", saved(writer)).title == title


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_an_encrypted_pdf_is_read_only_where_it_opens_without_a_password(tmp_path: Path, algorithm: str) -> None:
    locked, printable = (PdfWriter(clone_from=PdfReader(BytesIO(pdf_of(["text"])))) for _ in range(2))
    locked.encrypt("secret", algorithm=algorithm)
    printable.encrypt("", "owner", algorithm=algorithm)
    assert "is encrypted; save it without a password" in refusal(tmp_path, "a.pdf", saved(locked))
    assert page_of(tmp_path, "b.pdf", saved(printable)).text == "text"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is damaged"),
        (b"not a PDF", "is damaged"),
        (BOOK[:150], "is damaged"),
        (b"%PDF-1.4\n" + bytes(range(256)) * 8, "is damaged"),
        (pdf_of([], [" "]), "holds no text, only pictures of it; run text recognition (OCR)"),
    ],
)
def test_a_pdf_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    assert what in refusal(tmp_path, "a.pdf", content)


LINES = st.lists(WORDS, max_size=5)


@given(pages=st.lists(LINES, min_size=1, max_size=4).filter(lambda pages: any(pages)))
def test_no_word_of_a_pdf_is_lost_and_their_order_is_kept(
    pages: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = page_of(tmp_path_factory.getbasetemp(), "book.pdf", pdf_of(*pages))
    assert page.text.split() == " ".join(line for lines in pages for line in lines).split()


@given(content=st.binary(max_size=60), at=st.integers(0, len(BOOK)))
def test_a_damaged_pdf_is_read_or_refused_by_name(
    content: bytes, at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        page_of(tmp_path_factory.getbasetemp(), "torn.pdf", BOOK[:at] + content + BOOK[at + len(content) :])
    except InputError as error:
        assert "torn.pdf" in str(error)
