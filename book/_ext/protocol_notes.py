"""Show a link to the errata on top of each protocol, whose own text is hashed into records and cannot be changed."""

from __future__ import annotations

PROTOCOLS = ("protocol", *(f"protocol-{version}" for version in range(2, 12)), "protocol-external")
NOTE = """
:::{{important}}
The text of this page is fixed, because its hash is part of the records. [Errata of the protocols](protocol-errata.md)
corrects it{said}.
:::
"""
SAID = {"protocol": ": what this page calls the second look at the test set was the **third look**"}


def with_note(name: str, text: str) -> str:
    """Return the text of a protocol with a note under its title; the text of any other page as it is."""
    if name not in PROTOCOLS:
        return text
    title, rest = text.split("\n", 1)
    return title + "\n" + NOTE.format(said=SAID.get(name, "")) + rest


def _add_note(app, name, source):
    source[0] = with_note(name, source[0])


def setup(app):
    """Register with Sphinx: pages are changed as they are read, files stay as they are."""
    app.connect("source-read", _add_note)
    return {"parallel_read_safe": True}
