#!/usr/bin/env python3
"""Looks at every link of a built book: the page is there, and has the place that the link names.

    links.py DIRECTORY
"""

import pathlib
import re
import sys
from html import unescape
from urllib.parse import unquote, urlsplit

# Fewest links that the search must find, lest it finds none and says nothing.
LINKS_MIN = 300
# Pages that mdBook makes of the others.
MADE = {"print.html", "404.html", "toc.html"}


def main() -> None:
    book = pathlib.Path(sys.argv[1]).resolve()
    pages = {page: page.read_text() for page in book.rglob("*.html") if page.name not in MADE}
    places = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    links, broken = 0, []
    for page, text in pages.items():
        for target in map(unescape, re.findall(r'<a\b[^>]*\bhref="([^"]+)"', text)):
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            links += 1
            there = (page.parent / unquote(url.path)).resolve() if url.path else page
            if not there.is_file():
                broken.append(f"{page.name}: there is no {target}")
            elif url.fragment and there.name not in MADE and unquote(url.fragment) not in places.get(there, set()):
                broken.append(f"{page.name}: {there.name} has no place #{url.fragment}")
            elif not there.is_relative_to(book):
                broken.append(f"{page.name}: {target} leads out of the book")
    for fault in sorted(set(broken)):
        print(f"!! {fault}", file=sys.stderr)
    print(f"{links} links of {len(pages)} pages, {len(set(broken))} of them broken")
    if links < LINKS_MIN:
        print(f"!! only {links} links were found", file=sys.stderr)
    sys.exit(1 if broken or links < LINKS_MIN else 0)


if __name__ == "__main__":
    main()
