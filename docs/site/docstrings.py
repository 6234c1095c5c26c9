"""Docstrings as they are written here, into reStructuredText.

They are plain text: paragraphs, terms with what is said of them indented below, lists, examples that are run, and what
is laid out by spaces (equations, tables, directories), which is shown as it stands. Code is between `single` quotes.
"""

import ast
import inspect
import re
import textwrap

CODE = re.compile(r"`+[^`]+`+")
EMPHASIS = re.compile(r"(?<![\w*])\*([A-Za-z][A-Za-z \n-]*[A-Za-z])\*(?![\w*])")


def blocks(lines: list[str]) -> list[list[str]]:
    """Lines cut at blank ones that no deeper line follows: a block is all that belongs to its first line."""
    found: list[list[str]] = []
    blank = True
    for line in lines:
        if not line.strip():
            blank = True
            if found:
                found[-1].append("")
            continue
        deeper = line[0] == " "
        if not found or (blank and not deeper):
            found.append([])
        found[-1].append(line)
        blank = False
    return [strip(block) for block in found]


def strip(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    while lines and not lines[0].strip():
        lines = lines[1:]
    return lines


def escaped(text: str) -> str:
    """A line of prose: code is a literal, *this* is emphasis, everything else is what it is."""
    pieces, last = [], 0
    for found in CODE.finditer(text):
        pieces += [prose(text[last : found.start()]), f"``{found[0].strip('`')}``", ""]
        # A literal ends where a blank or a sign follows: \  is a blank that is not seen.
        if found.end() < len(text) and re.match(r"\w", text[found.end()]):
            pieces[-1] = "\\ "
        last = found.end()
    return "".join([*pieces, prose(text[last:])])


def prose(text: str) -> str:
    kept = [(m.start(), m.end(), m[1]) for m in EMPHASIS.finditer(text)]
    out, last = [], 0
    for start, end, words in kept:
        out += [plain(text[last:start]), f"*{words}*"]
        last = end
    return "".join([*out, plain(text[last:])])


def plain(text: str) -> str:
    return re.sub(r"([*_|\\`<>])", r"\\\1", text.replace("->", "→"))


def laid_out(lines: list[str]) -> bool:
    """Whether spaces within the lines mean something."""
    return any(re.search(r"\S {3,}\S", line) for line in lines)


def literal(lines: list[str]) -> list[str]:
    return [
        "::",
        "",
        *("    " + line if line else "" for line in textwrap.dedent("\n".join(lines)).split("\n")),
        "",
    ]


def to_rst(lines: list[str]) -> list[str]:
    """A docstring's lines, of which the outermost are flush left."""
    return [line for block in blocks(lines) for line in one(block)]


def one(block: list[str]) -> list[str]:
    first = block[0]
    if first.startswith(">>>"):
        # Text after the output of an example is a paragraph of its own already.
        return [*block, ""]
    if re.match(r"(-|\d+\.) ", first):
        return listed(block)
    flush = [i for i, line in enumerate(block) if line and line[0] != " "]
    shallow = block[: next((i for i, line in enumerate(block) if not line.strip()), len(block))]
    if laid_out(shallow):
        return [*literal(block)]
    # A term: one line or more flush, and then deeper lines without a blank between.
    terms = [i for i in flush if i + 1 < len(block) and block[i + 1].startswith(" ")]
    if terms and (flush == terms):
        out = []
        for i, at in enumerate(flush):
            end = flush[i + 1] if i + 1 < len(flush) else len(block)
            body = textwrap.dedent("\n".join(block[at + 1 : end])).split("\n")
            out += [term(block[at]), *("    " + line if line else "" for line in to_rst(strip(body)))]
        return [*out, ""]
    if flush == list(range(len(flush))):
        # A paragraph, and what is set off below it.
        below = strip(block[len(flush) :])
        out = [escaped_lines(block[: len(flush)]), ""]
        return [*out, *literal(below)] if below else out
    return literal(block)


def escaped_lines(lines: list[str]) -> str:
    # At once, as code and emphasis may run over the end of a line.
    return re.sub(r"\s*\n\s*", " ", escaped("\n".join(lines)))


def term(line: str) -> str:
    return escaped(line) if "`" in line else f"``{line}``"


def listed(block: list[str]) -> list[str]:
    items: list[list[str]] = []
    for line in block:
        if re.match(r"(-|\d+\.) ", line):
            items.append([line])
        elif items:
            items[-1].append(line)
    out: list[str] = []
    for item in items:
        mark = re.match(r"(?:-|\d+\.) ", item[0])
        indent = " " * len(mark[0])
        body = [item[0][mark.end() :], *(line.strip() for line in item[1:] if line.strip())]
        out.append(mark[0] + escaped_lines(body).replace("\n", "\n" + indent))
    return [*out, ""]


def process(app, what, name, obj, options, lines):
    lines[:] = "\n".join(to_rst(list(lines))).split("\n")


def signature(app, what, name, obj, options, signature, return_annotation):
    """Arguments as the source has them: annotations are words there, and defaults names."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError, SyntaxError, IndentationError, IndexError):
        return None
    if isinstance(tree, ast.ClassDef):
        fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
        bases = [ast.unparse(base) for base in tree.bases]
        if "Protocol" in bases:
            return "", None
        if not fields:
            return None
        shown = [ast.unparse(field).replace(": ", ": ", 1) for field in fields]
        return f"({', '.join(shown)})", None
    if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return None
    arguments = tree.args
    # For `names`, which takes a word that is an argument for one.
    every = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    app.env.jaxcl_arguments = getattr(app.env, "jaxcl_arguments", set()) | set(every)
    if what == "method" and arguments.args and arguments.args[0].arg == "self":
        arguments.args = arguments.args[1:]
    returns = ast.unparse(tree.returns) if tree.returns is not None else None
    return f"({ast.unparse(arguments)})", returns


def skip(app, what, name, obj, skipped, options):
    """The fields of a tuple are said in its docstring."""
    if type(obj).__name__ == "_tuplegetter" or name in ("count", "index"):
        return True
    return None


def setup(app):
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
