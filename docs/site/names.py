"""A code span that names something public of jaxcl leads to its page: `nt_xent`, `augment.two_views`, `losses`."""

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

# Metrics and protocols that have a function's name; with the room before it (`losses.alignment`) it leads there.
WORDS = {"alignment", "effective_rank", "knn", "uniformity"}


def targets(env) -> dict[str, tuple[str, str]]:
    """Every way to name an object that only one object has -> (page, anchor). A single word that is also an argument
    of some function is none, and a room needs `jaxcl.` before it."""
    words = WORDS | getattr(env, "jaxcl_arguments", set())
    found: dict[str, set] = {}
    for full, entry in env.domains["py"].objects.items():
        if entry.objtype in ("attribute", "method", "property"):
            continue
        parts = full.split(".")
        for start in range(1 if entry.objtype == "module" else len(parts)):
            found.setdefault(".".join(parts[start:]), set()).add((entry.docname, entry.node_id))
    return {
        name: next(iter(places)) for name, places in found.items() if len(places) == 1 and name not in words
    }


class Names(SphinxPostTransform):
    default_priority = 200

    def run(self, **options):
        known = getattr(self.env, "jaxcl_names", None)
        if known is None:
            known = self.env.jaxcl_names = targets(self.env)
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()")
            place = known.get(name)
            inside = literal.parent
            while inside is not None and not isinstance(inside, (nodes.reference, nodes.title)):
                inside = inside.parent
            if place is None or inside is not None:
                continue
            if place[0] == self.env.docname and self.own(literal, place[1]):
                continue
            reference = make_refnode(
                self.app.builder, self.env.docname, place[0], place[1], literal.deepcopy()
            )
            literal.replace_self(reference)

    def own(self, node, anchor) -> bool:
        """Whether a node stands in the very description that it would lead to."""
        while node is not None:
            if any(
                anchor in child.get("ids", ()) for child in node.children if isinstance(child, nodes.Element)
            ):
                return True
            node = node.parent
        return False


def setup(app):
    app.add_post_transform(Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
