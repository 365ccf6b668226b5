"""Pages about a pruned model for people: report.html, the model card, and what they are made from."""

STORY = "page.json"  # of a folder: what its page shows beside report.json and plan.json

__all__ = ["STORY"]
