"""A hook of mkdocs: links to files of the repository that are no pages become their text, and so do places in code."""

import re


def on_page_markdown(markdown, page, config, files):
    depth = page.file.src_uri.count("/") + 1
    outside = r"\[([^\]]*)\]\(" + re.escape("../" * depth) + r"[^)]*\)"
    markdown = re.sub(outside, r"\1", markdown)
    return re.sub(r"\[([\w.]+:\d+)\]", r"\\[\1\\]", markdown)
