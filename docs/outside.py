"""Hooks of mkdocs: links to files of the repository that are no pages become their text, and so do places in code."""

import re


def on_page_markdown(markdown, page, config, files):
    depth = page.file.src_uri.count("/") + 1
    outside = r"\[([^\]]*)\]\(" + re.escape("../" * depth) + r"[^)]*\)"
    markdown = re.sub(outside, r"\1", markdown)
    return re.sub(r"\[([\w.]+:\d+)\]", r"\\[\1\\]", markdown)


def on_page_content(html, page, config, files):
    """A head of a column that says nothing is no head: read aloud it would be one without a name."""
    return re.sub(r"<th([^>]*)>\s*</th>", r"<td\1></td>", html)
