"""Equations as MathML, written when the site is built: browsers draw it themselves, without scripts or fonts."""

from latex2mathml.converter import convert
from sphinx.util.logging import getLogger

log = getLogger(__name__)


def mathml(node, display: str) -> str:
    """The equation of a node; what cannot be converted is a warning, and so an error."""
    latex = node.astext()
    try:
        return convert(latex, display=display)
    except Exception as error:  # whatever the converter raises
        log.warning("an equation is no LaTeX that MathML can be made of (%s): %s", error, latex, location=node)
        return ""


def inline(translator, node):
    translator.body.append(mathml(node, "inline"))
    raise_skip()


def block(translator, node):
    translator.body.append(f'<div class="equation">{mathml(node, "block")}</div>\n')
    raise_skip()


def raise_skip():
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
