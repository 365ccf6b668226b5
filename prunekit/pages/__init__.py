"""Pages about a pruned model for people: report.html, the model card, and what they are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunekit.pages.anatomy import anatomy_of
    from prunekit.pages.card import model_card
    from prunekit.pages.page import report_page
    from prunekit.pages.side_by_side import comparison_page
else:
    from prunekit.deferred import deferred_names

    # whoever loads a model looks at no page
    __getattr__, __dir__ = deferred_names(
        __name__,
        {
            "anatomy_of": "prunekit.pages.anatomy",
            "model_card": "prunekit.pages.card",
            "report_page": "prunekit.pages.page",
            "comparison_page": "prunekit.pages.side_by_side",
        },
    )

STORY = "page.json"  # of a folder: what its page shows beside report.json and plan.json
CARD, PAGE = "README.md", "report.html"

__all__ = ["CARD", "PAGE", "STORY", "anatomy_of", "comparison_page", "model_card", "report_page"]
