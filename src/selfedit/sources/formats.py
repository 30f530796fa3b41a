"""The kinds of document: Markdown, plain text, HTML and PDF, each made a title and a text.

Headings stay or become Markdown's, so that a long document is cut where its author would cut it: HTML's <h1> to <h6>,
and a PDF's bookmarks (a PDF has no headings, only letters in places). Of an HTML page, what helps to read the page and
is not the page is dropped: scripts, styles, navigation, footers, forms' fields, the targets of links, pictures.

    page = read_page(Path("handbook.pdf"))

HTML and PDF need `pip install 'selfedit[documents]'`: markdownify on Beautiful Soup, and pypdf.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfedit.errors import InputError, from_extra
from selfedit.sources.files import decode, read_bytes
from selfedit.sources.splitting import headings

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from pypdf import PdfReader


@dataclass(frozen=True, slots=True)
class Page:
    """A document's title ("" where it says none) and its text as Markdown."""

    title: str
    text: str


def read_page(path: Path) -> Page:
    """Read a document of one of the kinds in `READERS`.

    Raises `InputError` for one that cannot be read or holds no text, `MissingExtra` where its library is missing.
    """
    page = READERS[path.suffix.lower()](read_bytes(path), repr(str(path)))
    if not page.text.strip():
        what = "holds a heading and no text" if page.title else "is empty"
        raise InputError(f"the document {str(path)!r} {what}; write something in it or remove it")
    return Page(page.title, page.text.strip())


def _read_plain(content: bytes, where: str) -> Page:
    return Page("", decode(content, where))


def _read_markdown(content: bytes, where: str) -> Page:
    return _take_title(decode(content, where))


def _take_title(text: str) -> Page:
    """Take the first top heading, or any heading that opens the text, out of it."""
    opening = len(text) - len(text.lstrip())
    for heading in headings(text):
        if heading.level == 1 or heading.start <= opening:
            return Page(heading.title, text[: heading.start] + text[heading.end :])
    return Page("", text)


# ── HTML ──

_DROPPED = "script, style, noscript, template, nav, footer, iframe, svg, canvas, button, input, select, textarea"
_HIDDEN = "[hidden], [aria-hidden=true], [role=navigation], [role=search], [role=contentinfo]"
_ANCHORS = {"", "#", "¶", "§", "🔗"}  # links beside headings that lead to the heading itself


def _read_html(content: bytes, where: str) -> Page:
    with from_extra("documents", f"the HTML document {where}"):
        from bs4 import BeautifulSoup
        from bs4.exceptions import ParserRejectedMarkup
        from markdownify import MarkdownConverter
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", strip=["a", "img"], escape_asterisks=False, escape_underscores=False
    )
    source = _decode_html(content, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about the markup; it is read all the same
            soup = BeautifulSoup(source, "html.parser")
        name = " ".join(soup.title.get_text().split()) if soup.title else ""
        page = _take_title(converter.convert_soup(_content(soup)))
    except (ParserRejectedMarkup, RecursionError) as error:
        raise InputError(
            f"the HTML document {where} is damaged: its elements cannot be told apart; repair it or remove it"
        ) from error
    if not page.text.strip():
        raise InputError(f"the HTML document {where} holds no text to read; remove it")
    return Page(page.title or name, page.text)


def _decode_html(content: bytes, where: str) -> str:
    """Decode as the byte order mark or the page itself says, else as UTF-8."""
    from bs4.dammit import EncodingDetector

    content, marked = EncodingDetector.strip_byte_order_mark(content)
    declared = marked or EncodingDetector.find_declared_encoding(content, is_html=True)
    try:
        return decode(content, where, declared or "utf-8")
    except LookupError:  # no encoding that Python knows
        return decode(content, where)


def _content(soup: BeautifulSoup) -> BeautifulSoup | Tag:
    """Drop what is not the page, and everything around the main part where the page names one."""
    from bs4.element import CData, PreformattedString

    for note in soup.find_all(string=lambda text: isinstance(text, PreformattedString) and not isinstance(text, CData)):
        note.extract()  # comments, declarations and processing instructions
    for element in soup.select(f"{_DROPPED}, {_HIDDEN}"):
        element.decompose()
    for link in soup.find_all("a"):
        if link.get_text().strip() in _ANCHORS:
            link.decompose()
    main = soup.select_one("main, [role=main]")
    return main if main and main.get_text().strip() else soup.body or soup


# ── PDF ──

_NO_TITLE = re.compile(r"untitled.*|microsoft \w+\b.*|.*\.\w{2,5}", re.IGNORECASE)  # what programs write by themselves


@dataclass(frozen=True, slots=True)
class _Bookmark:
    """An entry of a PDF's outline: `level` 2 for a chapter (1 is the document), `page` counted from 0."""

    page: int
    level: int
    title: str


def _read_pdf(content: bytes, where: str) -> Page:
    with from_extra("documents", f"the PDF {where}"):
        from pypdf import PdfReader
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it reports every oddity that it has mended
    try:
        reader = PdfReader(BytesIO(content))
        is_locked = reader.is_encrypted and not reader.decrypt("")
        pages = [] if is_locked else [_clean(page.extract_text()) for page in reader.pages]
        bookmarks = [] if is_locked else list(_bookmarks(reader, reader.outline, 2))
        title = "" if is_locked else _pdf_title(reader)
    except Exception as error:  # a damaged file makes the library fail in any of a dozen ways
        raise InputError(f"the PDF {where} is damaged ({error}); save it again or remove it") from error
    if is_locked:
        raise InputError(f"the PDF {where} is encrypted; save it without a password or remove it")
    if not any(page.strip() for page in pages):
        raise InputError(f"the PDF {where} holds no text, only pictures of it; run text recognition (OCR) on it first")
    return Page(title, _with_headings(pages, bookmarks))


def _clean(text: str) -> str:
    """Replace what no encoding can hold: fonts without a table give NUL and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _pdf_title(reader: PdfReader) -> str:
    title = " ".join(_clean(str((reader.metadata and reader.metadata.title) or "")).split())
    return "" if _NO_TITLE.fullmatch(title) else title


def _bookmarks(reader: PdfReader, entries: Sequence[Any], level: int) -> Iterator[_Bookmark]:
    """Walk the outline: an entry, or a list of what stands under the entry before it."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _bookmarks(reader, entry, level + 1)
            continue
        page = reader.get_destination_page_number(entry)
        title = " ".join(_clean(str(entry.title or "")).split())
        if page is not None and page >= 0 and title:
            yield _Bookmark(page, min(level, 6), title)


def _with_headings(pages: Sequence[str], bookmarks: Sequence[_Bookmark]) -> str:
    """Join the pages, every bookmark a heading: in place of the line that says the same, else before what follows."""
    lines_P = [page.splitlines() for page in pages]
    below = [0] * len(pages)  # the line of each page under its last heading
    for mark in bookmarks:
        lines, start = lines_P[mark.page], below[mark.page]
        said = next((i for i in range(start, len(lines)) if _is_same(lines[i], mark.title)), None)
        at = start if said is None else said
        lines[at : at + (said is not None)] = ["", f"{'#' * mark.level} {mark.title}", ""]
        below[mark.page] = at + 3
    return "\n\n".join("\n".join(lines) for lines in lines_P)


def _is_same(line: str, title: str) -> bool:
    """Compare letters and digits alone, after a number such as "2.1" that one of both may lack."""
    one, other = ("".join(re.findall(r"\w", text)).casefold() for text in (line, title))
    return bool(one) and (one == other or one.lstrip("0123456789") == other.lstrip("0123456789") != "")


Reader = Callable[[bytes, str], Page]
READERS: dict[str, Reader] = {
    ".md": _read_markdown,
    ".txt": _read_plain,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
    ".pdf": _read_pdf,
}
