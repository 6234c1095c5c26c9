"""What the files of a folder are: which split each belongs to, of which class it is, and how that was read."""

from jaxcl.data.layout.parts import Layout, Part
from jaxcl.data.layout.reading import LAYOUTS, check_layout, layout_of

__all__ = [
    "LAYOUTS",
    "Layout",
    "Part",
    "check_layout",
    "layout_of",
]
