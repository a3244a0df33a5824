"""Reads a page as a browser would, and checks what every page must be."""

import base64
from html.parser import HTMLParser
from io import BytesIO

from PIL import Image

VOID = {"meta", "input", "img", "br"}
FETCHED = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """The text, the elements and the pictures of a page; wrong nesting and references to elsewhere fail."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pictures: list[Image.Image] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"{self.open} stay open"
        assert "url(http" not in html and "@import" not in html
        self._check_anchors()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert len(named) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, named))
        for name in FETCHED & named.keys():
            self._check_reference(named[name] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def _check_reference(self, reference: str) -> None:
        if reference.startswith("#"):
            return
        kind, comma, data = reference.partition(",")
        assert (kind, comma) == ("data:image/png;base64", ","), f"{reference[:80]} is elsewhere"
        image = Image.open(BytesIO(base64.b64decode(data, validate=True)))
        image.load()
        self.pictures.append(image)

    def _check_anchors(self) -> None:
        ids = [attrs["id"] for _, attrs in self.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        targets = {attrs["href"] for tag, attrs in self.elements if "href" in attrs}
        assert targets <= {f"#{name}" for name in ids}

    def count(self, tag: str, **attrs: str) -> int:
        """How many elements of this kind, with these attributes, there are."""
        return sum(kind == tag and attrs.items() <= own.items() for kind, own in self.elements)
