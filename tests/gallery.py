"""Every message that a user may see, read from the source: docs/messages.md.

    python tests/gallery.py            prints it
    python tests/gallery.py --write    writes it

Errors and warnings are all there, the help of every option, and of what is printed or returned whatever reads as a
sentence. A value that a message fills in stands in braces, by the name it has in the program. Of a message in several
lines the first is shown.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "messages.md"
HEAD = """# What jaxcl says when something is wrong

Every message that a user may see, and the help of every option, by the file it comes from; in braces what is filled in.
Made from the source by `python tests/gallery.py --write`, and a test compares. Read it as a user: does each say what
was expected, what came and what to do?
"""


def named(node):
    """A word for a value: the variable, the attribute, or what it is made of."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Attribute(attr="join"), args=[what, *_]):
            return f"{named(what)}, ..."
        case ast.Call(func=ast.Name(id="len"), args=[what, *_]):
            return f"number of {named(what)}"
        case ast.Call(
            func=ast.Name(id="str" | "type" | "map" | "sorted" | "list" | "tuple"), args=[*_, what]
        ):
            return named(what)
        case ast.Call(func=what) | ast.Subscript(value=what) | ast.FormattedValue(value=what):
            return named(what)
        case (
            ast.GeneratorExp(generators=[ast.comprehension(iter=what), *_])
            | ast.ListComp(generators=[ast.comprehension(iter=what), *_])
        ):
            return named(what)
        case ast.BinOp(left=what) | ast.BoolOp(values=[what, *_]):
            return named(what)
    return "..."


def text(node):
    """The template of a message; None of what is no text."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(
                text(part) if isinstance(part, ast.Constant) else "{" + named(part.value) + "}"
                for part in parts
            )
        case ast.BinOp(op=ast.Add()):
            sides = (node.left, node.right)
            if any(text(side) is not None for side in sides):
                return "".join(
                    "{" + named(side) + "}" if text(side) is None else text(side) for side in sides
                )
        case ast.IfExp(body=body, orelse=orelse):
            return text(body) or text(orelse)
    return None


def words(message):
    return [word for word in message.split() if any(letter.isalpha() for letter in word)]


def docstrings(tree):
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def messages(tree):
    """(line, kind, first line of the template) of a file, in the order of its lines."""
    found, seen = [], docstrings(tree)
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }

    def add(kind, node, *, sentence):
        if node is None or id(node) in seen:
            return
        template = text(node)
        seen.update(id(part) for part in ast.walk(node))
        if template is None or not words(template):
            return
        first = " ".join(template.strip().split("\n")[0].split())
        reads = len(words(first)) >= 5 and first.rstrip("\"'`)").endswith((".", ":", "?", "!"))
        if reads or not sentence:
            found.append((node.lineno, kind, first))

    def explain(call):
        """An option of the command line and its help."""
        help_ = next((given.value for given in call.keywords if given.arg == "help"), None)
        help_ = constants.get(getattr(help_, "id", None), help_)
        if help_ is not None and text(help_):
            found.append((call.lineno, "option", f"{call.args[0].value}: {' '.join(text(help_).split())}"))

    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            add(ast.unparse(node.exc.func).rpartition(".")[2], node.exc.args[0], sentence=False)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
            add("warning", node.args[0], sentence=False)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            explain(node)
        # What explains a command, a knob or a field is no message.
        elif isinstance(node, ast.keyword) and node.arg in ("help", "description", "epilog"):
            seen.update(id(part) for part in ast.walk(node.value))
        elif isinstance(node, ast.AnnAssign):
            seen.update(id(part) for part in ast.walk(node.annotation))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            seen.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.BinOp) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        ):
            add("said", node, sentence=True)
    return sorted(found)


def gallery():
    """The whole page."""
    lines = [HEAD]
    for path in sorted((ROOT / "jaxcl").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = messages(tree)
        if found:
            about = (ast.get_docstring(tree) or "").partition("\n")[0]
            lines.append(f"\n## {path.relative_to(ROOT / 'jaxcl')}: {about}\n")
            lines += [f"- {kind}: {message}" for _, kind, message in found]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(gallery(), encoding="utf-8")
    else:
        print(gallery(), end="")
