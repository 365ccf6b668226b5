"""A picture of a plan: the width of every group before and after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from prunekit.plans.contents import Plan

logger = logging.getLogger(__name__)

ROW, BAR, TOP, GAP = 18, 420, 24, 8


def widths_picture(plan: Plan) -> Callable[[Path], None]:
    """A function that writes the picture: a bar a group, as long as the share of its units that is kept."""

    def write(path: Path) -> None:
        try:
            from PIL import Image, ImageDraw
        except ImportError:
            logger.warning("no %s: pillow is not installed (pip install 'prunekit[plots]')", path.name)
            return
        names = [f"{width.group}  {width.role}" for width in plan.widths]
        ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))  # names of groups are as long as the model's paths
        left = round(max(map(ruler.textlength, ["group, role", *names]))) + 3 * GAP
        sheet = Image.new("RGB", (left + BAR + 130, TOP + ROW * max(1, len(names)) + GAP), "white")
        draw = ImageDraw.Draw(sheet)
        draw.text((GAP, 6), "group, role", fill="black")
        draw.text((left, 6), "kept of all units", fill="black")
        for row, width in enumerate(plan.widths):
            y = TOP + ROW * row
            kept = round(BAR * width.after / width.before)
            draw.text((GAP, y + 2), names[row], fill="black")
            draw.rectangle((left, y + 2, left + BAR, y + ROW - 4), fill="#dddddd")
            draw.rectangle((left, y + 2, left + kept, y + ROW - 4), fill="#d9730d")
            draw.text((left + BAR + GAP, y + 2), f"{width.before} -> {width.after}", fill="black")
        sheet.save(path)

    return write
