"""A picture of a plan: the width of every group before and after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from prunekit.plans.contents import Plan

logger = logging.getLogger(__name__)

ROW, LEFT, BAR, TOP = 18, 330, 420, 24


def widths_picture(plan: Plan) -> Callable[[Path], None]:
    """A function that writes the picture: a bar a group, as long as the share of its units that is kept."""

    def write(path: Path) -> None:
        try:
            from PIL import Image, ImageDraw
        except ImportError:
            logger.warning("no %s: pillow is not installed (pip install 'prunekit[plots]')", path.name)
            return
        sheet = Image.new("RGB", (LEFT + BAR + 130, TOP + ROW * max(1, len(plan.widths)) + 8), "white")
        draw = ImageDraw.Draw(sheet)
        draw.text((8, 6), "group, role", fill="black")
        draw.text((LEFT, 6), "kept of all units", fill="black")
        for row, width in enumerate(plan.widths):
            y = TOP + ROW * row
            draw.text((8, y + 2), _short(f"{width.group}  {width.role}"), fill="black")
            draw.rectangle((LEFT, y + 2, LEFT + BAR, y + ROW - 4), fill="#dddddd")
            draw.rectangle((LEFT, y + 2, LEFT + round(BAR * width.after / width.before), y + ROW - 4), fill="#d9730d")
            draw.text((LEFT + BAR + 8, y + 2), f"{width.before} -> {width.after}", fill="black")
        sheet.save(path)

    return write


def _short(text: str, limit: int = 52) -> str:
    return text if len(text) <= limit else "..." + text[3 - limit :]
