"""Equations as MathML, written when the site is built: browsers draw it themselves, without scripts or fonts."""

from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.logging import getLogger

log = getLogger(__name__)

# Operators whose limits stand above and below them where there is room.
LARGE = {"∑", "∏", "mean", "max", "min"}
LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}


def mathml(latex: str, *, display: str = "inline") -> str:
    r"""LaTeX as MathML.

    >>> "<mfrac>" in mathml(r"\frac{1}{n}"), "munder" in mathml(r"\sum_i x_i", display="block")
    (True, True)
    """
    ElementTree.register_namespace("", "http://www.w3.org/1998/Math/MathML")
    tree = ElementTree.fromstring(convert(latex, display=display))
    if display == "block":
        for node in tree.iter():
            space, _, name = node.tag.rpartition("}")
            if name in LIMITS and (node[0].text or "").strip() in LARGE:
                node.tag = f"{space}}}{LIMITS[name]}"
                node[0].set("movablelimits", "true")
    return ElementTree.tostring(tree, encoding="unicode")


def written(node, display: str) -> str:
    """The equation of a node; what cannot be converted is a warning, and so an error."""
    latex = node.astext()
    try:
        return mathml(latex, display=display)
    except Exception as error:  # whatever the converter raises
        log.warning("an equation of which no MathML can be made (%s): %s", error, latex, location=node)
        return ""


def inline(translator, node):
    translator.body.append(written(node, "inline"))
    raise nodes.SkipNode


def block(translator, node):
    translator.body.append(f'<div class="equation">{written(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
