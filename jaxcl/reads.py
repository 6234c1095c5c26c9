"""Which knobs a function may read, from its text: also in functions that it defines and calls later, or hands them to.

    knobs_read_by(config.data, {"seed", "size", "temperature"})    # {"size"}

What the text does not say for certain counts as read: knobs that are kept, changed or given to something that is no
plain function; a function whose text is not there; a method or property of the knobs.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import textwrap
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Knobs that say how the images of --data are read.
IMAGES = ("train_on", "labels", "layout", "value_range", "encoded")
# They reach a variable that the text does not name.
BEHIND = {"locals", "vars", "eval", "exec"}


def knobs_read_by(function: Any, fields: Collection[str]) -> set[str]:
    """Those of the fields that a function of knobs, its first argument, may read; all where its text does not say."""
    found = _read(function, 0, set())
    return set(found) if found is not None and found <= set(fields) else set(fields)


def check_read(function: Any, knobs: Any) -> Any:
    """The knobs. Raises ValueError where one of `IMAGES` has another value than by default and the function ignores
    it."""
    read = knobs_read_by(function, {field.name for field in dataclasses.fields(knobs)})
    given = [
        name for name in IMAGES if name not in read and getattr(knobs, name) != getattr(type(knobs), name)
    ]
    if given:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"The config makes its images itself, in data(knobs), which does not read {said}. Leave it out, or let the"
            " config's data(knobs) hand it on."
        )
    return knobs


def _read(function: Any, which: int | str | None, seen: set[tuple[FunctionType, str]]) -> set[str] | None:
    """The attributes that a function reads of one parameter, by its place or name; None where there may be others."""
    tree = _definition(function)
    own = None if tree is None else _parameter(tree.args, which)
    if tree is None or own is None:
        return None
    if (function, own) in seen:
        return set()  # already among those found
    seen.add((function, own))
    nodes = [node for statement in tree.body for node in ast.walk(statement)]
    local = set(_local(function.__code__))
    if any(
        isinstance(node, ast.ClassDef | ast.Global) or (isinstance(node, ast.Name) and node.id in BEHIND)
        for node in nodes
    ):
        return None
    found: set[str] = set()
    understood: set[ast.expr] = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and _is(node.value, own):
            found.add(node.attr)
            understood.add(node.value)
        if isinstance(node, ast.Call) and not any(isinstance(x, ast.Starred) for x in node.args):
            given = [*enumerate(node.args), *((x.arg, x.value) for x in node.keywords)]
            for place, argument in given:
                if not _is(argument, own):
                    continue
                called = _called(node.func, function, local)
                read = _words(node, nodes, function) if called is getattr else _read(called, place, seen)
                if read is None:
                    return None
                found |= read
                understood.add(argument)
    if any(_is(node, own) and node not in understood for node in nodes):
        return None
    return found


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _definition(function: Any) -> ast.FunctionDef | None:
    """A plain function's text; None of a lambda, of what is decorated, and where there is no text."""
    if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        return None
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list or tree.name != function.__name__:
        return None
    return tree


def _parameter(arguments: ast.arguments, which: int | str | None) -> str | None:
    by_place = [x.arg for x in (*arguments.posonlyargs, *arguments.args)]
    if isinstance(which, int):
        return by_place[which] if which < len(by_place) else None
    return which if which in by_place or which in [x.arg for x in arguments.kwonlyargs] else None


def _local(code: CodeType) -> Iterator[str]:
    """All names that are no globals, also of the functions within."""
    yield from (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _local(inner)


def _called(node: ast.expr, function: FunctionType, local: Collection[str]) -> Any:
    """What a call's text calls: a global of the function's file, or of a module; None where that is not certain."""
    if isinstance(node, ast.Name) and node.id not in local:
        return function.__globals__.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        module = _called(node.value, function, local)
        return getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
    return None


def _words(call: ast.Call, nodes: list[ast.AST], function: FunctionType) -> set[str] | None:
    """The names that getattr(knobs, name) may ask for, where `name` runs through words that stand there."""
    name = call.args[1] if len(call.args) > 1 else None
    if isinstance(name, ast.Constant):
        return {str(name.value)}
    if not isinstance(name, ast.Name):
        return None
    found: set[str] = set()
    bound = 0
    for node in nodes:
        if isinstance(node, ast.comprehension) and _is(node.target, name.id):
            if not isinstance(node.iter, ast.Tuple | ast.List):
                return None
            words = node.iter.elts
            if not all(isinstance(word, ast.Constant) and isinstance(word.value, str) for word in words):
                return None
            found |= {str(word.value) for word in words if isinstance(word, ast.Constant)}
            bound += 1
    # Nothing else may have that name: no variable, and no parameter of a function within.
    stored = sum(_is(node, name.id) and isinstance(node.ctx, ast.Store) for node in nodes)  # type: ignore[attr-defined]
    stored += sum(isinstance(node, ast.arg) and node.arg == name.id for node in nodes)
    return (
        found if bound and stored == bound and name.id not in inspect.signature(function).parameters else None
    )
