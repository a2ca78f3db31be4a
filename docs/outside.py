#!/usr/bin/env python3
"""Makes the book's links to files outside docs/ lead to the repository. mdBook runs this program as a preprocessor."""

import json
import re
import sys


def chapters(items):
    for item in items:
        if chapter := isinstance(item, dict) and item.get("Chapter"):
            yield chapter
            yield from chapters(chapter["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0 if sys.argv[2] == "html" else 1)
    context, book = json.load(sys.stdin)
    repository = context["config"]["output"]["html"]["git-repository-url"]
    for chapter in chapters(book.get("items", book.get("sections"))):
        chapter["content"] = re.sub(r"\]\(\.\./", f"]({repository}/blob/main/", chapter["content"])
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
