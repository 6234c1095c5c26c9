"""Notebooks as pages: their cells, and what they printed and drew when they were last run."""

import base64
import json
from pathlib import Path

from myst_parser.parsers.sphinx_ import MystParser

FIGURES = Path(__file__).resolve().parent.parent / "figures"


class NotebookParser(MystParser):
    supported = ("notebook",)

    def parse(self, inputstring, document):
        name = Path(document["source"]).stem
        super().parse(as_markdown(json.loads(inputstring), name, FIGURES), document)


def as_markdown(notebook: dict, name: str, folder: Path) -> str:
    """The text of a page; pictures are written to the folder, and a first line says where the notebook is."""
    out, pictures = [], 0
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            out.append(source)
            if number == 0:
                out.append(f"*This page is `notebooks/{name}.ipynb` as it was last run.*")
        elif cell["cell_type"] == "code" and source:
            out.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                data = output.get("data", {})
                if "image/png" in data:
                    pictures += 1
                    path = folder / f"{name}-{pictures}.png"
                    path.write_bytes(base64.b64decode("".join(data["image/png"])))
                    out.append(f"![What the cell draws](/docs/figures/{path.name})")
                elif text := "".join(output.get("text") or data.get("text/plain", "")).rstrip():
                    out.append(f"````text\n{text}\n````")
    return "\n\n".join(out) + "\n"


def setup(app):
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
