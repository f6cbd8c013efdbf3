"""Every relative link of the documentation leads to a file, and to a heading in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, anchors_of, links_of, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    lost: list[str] = []
    for file, anchor in links_of(page):
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            lost.append(file)
        elif anchor and anchor not in anchors_of(target):
            lost.append(f"{file}#{anchor}")
    assert lost == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_pages_of_the_site_link_to_pages_of_the_site(page: Path) -> None:
    """A file outside of docs/ is not there where the site is, and a folder has no page."""
    outside = [
        file
        for file, _ in links_of(page)
        if file and not ((page.parent / file).resolve().is_relative_to(DOCS) and "." in file[-5:])
    ]
    assert outside == []


def test_every_page_is_in_the_navigation() -> None:
    configuration = (DOCS / "zensical.toml").read_text("utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f'"{page}"' not in configuration] == []
