"""The shape of the house, read from its source: who may import whom, and what `import jaxcl` may load."""

import ast
import importlib
import inspect
import json
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcl

ROOT = Path(jaxcl.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py"))

# A room that may import from every other -> why.
EVERYTHING = {"cli": "each command opens the rooms it needs"}
# A room -> the rooms it may import from.
EDGES = {
    "typing": set(),
    "collectives": {"typing"},
    "devices": {"typing"},
    "shapes": {"typing"},
    "processes": set(),
    "keys": {"typing"},
    "shuffle": {"collectives", "typing"},
    "similarity": {"collectives", "shapes", "typing"},
    "images": {"typing"},
    "extract": {"collectives", "typing"},
    "monitor": {"collectives", "shapes", "similarity", "typing"},
    "memory": {"collectives", "shapes", "similarity", "typing"},
    "feature_transform": {"losses", "collectives", "shapes", "similarity", "typing"},
    "augment": {"augment", "collectives", "images", "shapes", "typing"},
    "nets": {"nets", "collectives", "typing"},
    "losses": {"losses", "similarity", "collectives", "shapes", "typing"},
    "methods": {
        "methods",
        "augment",
        "nets",
        "extract",
        "images",
        "similarity",
        "losses",
        "memory",
        "feature_transform",
        "monitor",
        "collectives",
        "keys",
        "shuffle",
        "typing",
    },
    "data": {"data", "augment", "images", "keys", "typing"},
    "evaluate": {"evaluate", "augment", "data", "devices", "images", "keys", "nets", "typing"},
    "train": {
        "train",
        "data",
        "config",
        "collectives",
        "devices",
        "interrupts",
        "keys",
        "memory",
        "records",
        "typing",
    },
    "plot": {"plot", "typing"},
    "config": {"data", "devices", "methods", "neighbors", "nets", "reads", "records", "typing"},
    "reads": set(),
    "hlo": set(),
    "programs": {"hlo"},
    "tables": {"statistics", "typing"},
    "machines": set(),
    "plan": {"config", "data", "devices", "keys", "machines", "plan", "programs", "train", "typing"},
    "interrupts": set(),
    "owner": set(),
    "records": set(),
    "neighbors": {"records"},
    "shipped": set(),
    "trust": {"shipped"},
    "identity": {"config", "neighbors", "train", "typing"},
    "longer": {"config", "records", "train", "typing"},
    "runs": {
        "config",
        "data",
        "encoder",
        "evaluate",
        "identity",
        "keys",
        "longer",
        "neighbors",
        "owner",
        "plan",
        "records",
        "runs",
        "tables",
        "train",
        "trust",
        "typing",
        "weights",
    },
    "encoder": {"config", "devices", "keys", "runs", "train", "typing"},
    "tensors": set(),
    "weights": {"encoder", "nets", "records", "runs", "tensors", "train", "typing"},
    "features": {"data", "encoder", "evaluate", "runs", "tables", "typing"},
    "report": {
        "augment",
        "config",
        "data",
        "encoder",
        "evaluate",
        "keys",
        "plot",
        "records",
        "report",
        "runs",
        "statistics",
        "status",
        "swept",
        "tables",
        "train",
        "typing",
    },
    "origin": {"typing"},
    "replay": {"config", "data", "devices", "keys", "origin", "runs", "train", "typing"},
    "cost": {"hlo"},
    "sweep": {"config", "plan", "plot", "reads", "records", "runs", "swept", "train", "typing"},
    "swept": {"config", "neighbors", "records", "runs", "train", "typing"},
    "statistics": set(),
    "study": {"config", "records", "shipped", "statistics", "sweep", "tables"},
    "answer": {"config", "records", "runs", "study", "sweep", "swept", "tables", "train"},
    "status": {"owner", "records", "train"},
    "testing": {"collectives", "cost", "devices", "train", "typing"},
    "five_parts": {"augment", "losses", "similarity", "typing"},
}
# A package -> the only rooms or files that may import it.
KEEPERS = {
    "flax": {"nets"},
    "matplotlib": {"plot"},
    "plotly": {"report/live"},
    "tensorflow": {"data/tf_read"},
    "tensorflow_datasets": {"data/tf_read"},
    "tyro": {"cli"},
    "orbax": {"train/checkpoint"},
    "tensorboardX": {"train/loggers"},
    "wandb": {"train/loggers"},
    "mlflow": {"train/loggers"},
    "pyarrow": {"features"},
    "torch": {"weights"},
}


def imported(path):
    """Every absolute module name that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module.partition(".")[0] == "jaxcl":  # a name may be a file
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def dotted(path):
    """The module that a file is: jaxcl.data.host, jaxcl.data.host.files."""
    return ".".join(["jaxcl", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


# A file may have so many lines; a longer one mostly has two subjects.
LINES = 450
# A longer file -> why it has one subject all the same, in words of its head.
LONGER = {
    "benchmarks/record.py": "whoever checks a record reads one program from top to bottom",
    "docs/site/figures.py": "a table of pictures, a function each",
}
PROGRAMS = [
    *FILES,
    *sorted(
        path for room in ("benchmarks", "configs", "docs") for path in (ROOT.parent / room).rglob("*.py")
    ),
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT.parent)))
def test_a_file_is_short_or_says_in_its_head_why_not(path):
    lines, why = len(path.read_text().splitlines()), LONGER.get(str(path.relative_to(ROOT.parent)))
    if why is None:
        assert lines <= LINES, f"{path.name} has {lines} lines: make two files of its two subjects"
    else:
        assert lines > LINES, f"{path.name} has {lines} lines, and needs no reason any more"
        assert why in " ".join(ast.get_docstring(ast.parse(path.read_text())).split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_the_rooms_its_own_room_may_enter(path):
    if room(path) in ("__init__", "__main__", *EVERYTHING):
        return
    allowed = EDGES[room(path)]
    entered = {name.split(".")[1] for name in imported(path) if name.startswith("jaxcl.")}
    assert entered <= allowed, f"{path.name} imports from {sorted(entered - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_outside_package_is_spoken_to_in_one_place(path):
    here = str(path.relative_to(ROOT).with_suffix(""))
    for name in imported(path):
        keepers = KEEPERS.get(name.split(".")[0])
        inside = keepers is None or any(here == keeper or here.startswith(f"{keeper}/") for keeper in keepers)
        assert inside, f"{here} imports {name}"


@pytest.mark.parametrize("room_name", ["augment", "data", "evaluate", "plan"])
def test_no_file_imports_another_that_imports_it(room_name):
    files = {dotted(path): set(imported(path)) for path in (ROOT / room_name).rglob("*.py")}
    # Not of the room that it lies in: it takes another file of it by that name.
    ahead = {
        name: {other for other in files if other in files[name] and not name.startswith(f"{other}.")}
        for name in files
    }
    while free := [name for name, others in ahead.items() if not others & ahead.keys()]:
        for name in free:
            del ahead[name]
    assert not ahead, f"these import each other: {sorted(ahead)}"


# Functions with the same body in several files -> why.
ALIKE = {
    "__len__": "a class tells its own length",
    "__enter__": "a class is its own context",
    "forward": "a method's page is read alone",
    "embed": "a method's page is read alone",
    "draw_panel, live": "each calls the functions of its own file, by matplotlib or by plotly",
}


def test_no_function_stands_in_two_files():
    bodies = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                text = ast.dump(ast.Module(body, []))
                bodies.setdefault(text, set()).add((node.name, path))
    nothing = {ast.dump(ast.parse(text)) for text in ("", "...")}  # of a protocol
    twice = {
        ", ".join(sorted({name for name, _ in found}))
        for text, found in bodies.items()
        if text not in nothing and len({path for _, path in found}) > 1
    }
    assert twice == set(ALIKE)


def test_importing_jaxcl_loads_neither_tensorflow_nor_matplotlib():
    rooms = "augment config data encoder evaluate losses methods nets plan report runs sweep tables train cli"
    program = f"""
import sys, jaxcl
for room in {rooms.split()!r}:
    __import__("jaxcl." + room)
print([name for name in ("tensorflow", "tensorflow_datasets", "matplotlib", "torch") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# The package's own page and the program are no rooms.
ROOMS = sorted({room(path) for path in FILES} - {"__init__", "__main__"})


def test_every_room_has_its_edges():
    assert set(ROOMS) - set(EDGES) == set(EVERYTHING)
    assert set(EDGES) <= set(ROOMS)


def public_functions():
    """Of a room with a list of its public names those; of a room that is one file all that it defines."""
    for room_name in ROOMS:
        module = importlib.import_module(f"jaxcl.{room_name}")
        for name in getattr(module, "__all__", vars(module)):
            member = getattr(module, name)
            own = hasattr(module, "__all__") or getattr(member, "__module__", "") == module.__name__
            if inspect.isfunction(member) and own and not name.startswith("_"):
                yield pytest.param(member, id=f"{room_name}.{name}")


# A function with an argument that has a default and is positional -> how many arguments are, and why.
POSITIONAL = {
    "from_arrays": (2, "the labels, an array, are left out where there are none"),
    "input_pipeline": (3, "the views are left out where there are none"),
    "shared_mesh": (1, "x, an array, is left out where a mesh is known without"),
    "main": (1, "the entry point of the program, called without words"),
}
# Every function of this room ends with the axis, as those of jax.lax do: mean(x, axis_name).
AXIS_LAST = "jaxcl.collectives"


@pytest.mark.parametrize("function", public_functions())
def test_keys_are_given_first_and_never_defaulted_and_defaults_are_keyword_only(function):
    parameters = list(inspect.signature(function).parameters.values())
    parameters = parameters[POSITIONAL.get(function.__name__, (0, ""))[0] :]
    for position, parameter in enumerate(parameters):
        if parameter.name == "key":
            assert position == 0
            assert parameter.default is parameter.empty
        last = function.__module__ == AXIS_LAST and parameter.name == "axis_name"
        if parameter.default is not parameter.empty and not last:
            assert parameter.kind is parameter.KEYWORD_ONLY, (
                f"{parameter.name} has a default and is positional"
            )


@pytest.mark.parametrize("function", public_functions())
def test_every_public_function_says_what_it_takes_and_gives(function):
    signature = inspect.signature(function)
    untyped = [name for name, given in signature.parameters.items() if given.annotation is given.empty]
    assert not untyped
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("function", public_functions())
def test_every_public_function_says_what_it_does(function):
    assert function.__doc__
    assert len(function.__doc__) >= 20


@pytest.mark.parametrize("function", public_functions())
def test_axis_name_and_block_size_are_explained_wherever_they_stand(function):
    for name in ("axis_name", "block_size"):
        if name in inspect.signature(function).parameters:
            assert re.search(rf"\b{name}\b", function.__doc__ + inspect.getmodule(function).__doc__), name
            assert name != "block_size" or name in function.__doc__


@pytest.mark.parametrize(
    "room", sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} - {"configs"})
)
def test_help_on_a_room_lists_what_is_in_it(room):
    module = importlib.import_module(f"jaxcl.{room}")
    shown = pydoc.render_doc(module, renderer=pydoc.plaintext)
    functions = [name for name in module.__all__ if inspect.isfunction(getattr(module, name))]
    assert functions
    for name in functions:
        assert re.search(rf"\b{name}\(", shown), name


def test_the_public_names_are_there_and_no_others():
    for name in jaxcl.__all__:
        assert getattr(jaxcl, name) is not None
    assert jaxcl.__all__ == sorted(set(jaxcl.__all__))
    # A page of the API that is not one of a room's own modules is of an attribute.
    pages = {path.stem for path in (ROOT / "docs/api").glob("*.md")} - {"index", "placement"}
    assert pages <= set(jaxcl.__all__)
    for name in ("train_run", "nothing_of_the_kind"):
        with pytest.raises(AttributeError, match=name):
            getattr(jaxcl, name)
    assert (ROOT / "py.typed").is_file()


def test_notebooks_and_configs_take_public_names_from_jaxcl():
    for path in [*ROOT.parent.glob("configs/*.py"), *ROOT.parent.glob("notebooks/*.ipynb")]:
        text = path.read_text()
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            text = "\n".join(
                line for line in "\n".join(code).splitlines() if not line.lstrip().startswith("%")
            )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "jaxcl":
                assert {alias.name for alias in node.names} <= set(jaxcl.__all__), path.name
