"""All messages stand in one gallery, docs/messages.md, so that one can read them; and they read as sentences."""

import ast
import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("gallery", Path(__file__).with_name("gallery.py"))
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


def found(program):
    return [message[1:] for message in gallery.messages(ast.parse(program))]


def test_the_gallery_is_up_to_date():
    there = gallery.FILE.read_text(encoding="utf-8").splitlines()
    made = gallery.gallery().splitlines()
    new, gone = [line for line in made if line not in there], [line for line in there if line not in made]
    assert made == there, f"run `python tests/gallery.py --write`; new: {new[:3]}, gone: {gone[:3]}"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            'raise ValueError(f"size is positive; got {size!r}.")',
            ("ValueError", "size is positive; got {size}."),
        ),
        ('raise ValueError("a " + "\\n".join(rows))', ("ValueError", "a {rows, ...}")),
        (
            'raise errors.Odd(f"{len(x.names)} of {self.n}, {x[0]:g}")',
            ("Odd", "{number of names} of {n}, {x}"),
        ),
        ('warnings.warn("look out", stacklevel=2)', ("warning", "look out")),
        ('print("the disk is full.")\nx = "the disk is full of it."', ("said", "the disk is full of it.")),
    ],
)
def test_a_message_is_read_with_what_is_filled_in(program, message):
    assert found(program) == [message]


def test_what_explains_and_what_is_no_sentence_is_left_out():
    assert (
        found('"""It says what this file is for."""\nx = "one two"\nf(help="an option that does it all.")')
        == []
    )
    assert found("raise ValueError(problem)\nraise") == []


def test_an_error_is_no_riddle():
    for path in sorted((gallery.ROOT / "jaxcl").rglob("*.py")):
        for line, kind, message in gallery.messages(ast.parse(path.read_text(encoding="utf-8"))):
            short = len(message.split()) < 3 and "{" not in message
            assert not (kind.endswith("Error") and short), f"{path.name}:{line}: {message!r} says too little"


# Words that were riddles -> what a reader understands at once.
RIDDLES = {
    "unless given": "default: ...",
    "if not given": "default: ...",
    "need no word": "needed only for ...",
    "without words": "with no name",
    "by its look": "found from the folders",
    "tells the lines apart": "distinguishes the lines",
    "gone on with": "resumed",
    "as far as they are not there": "missing",
    "stand beside": "the condition itself",
    "stands beside": "the condition itself",
    "next to nothing": "what few seeds do not show",
    "by boxes": "boxes, the number of box blurs",
    "side is that": "what it is, and its range",
    "is how many of": "what it is, and its range",
    "names elsewhere": "cannot be exported",
    "Of the two": "which has what",
    "trained along": "an online classifier",
    "stands alone": "cannot be given with others",
    "is not one step": "less than one step",
    "breaks off": "truncated",
    "made otherwise": "another ...",
    "is otherwise": "differs",
    "trained alike": "trained with the same",
    "made alike": "of the same structure",
    "dealt out": "split",
    "has no one": "has no single",
    "one way alone": "a single layout",
    "where it stood": "the last one",
    "stands in for": "is used as",
    "another name": "renamed",
    "on the way is": "the last part that exists",
}
# A message that has such words, and no riddle.
PLAIN = ("give another name",)


def test_the_messages_and_the_help_have_no_riddles():
    texts = (gallery.ROOT / "jaxcl" / "cli" / "texts.py").read_text(encoding="utf-8")
    for line in [*gallery.gallery().splitlines(), *texts.splitlines()]:
        if line.startswith("#"):
            continue  # what a file is about
        for riddle, instead in RIDDLES.items():
            told = riddle in line and not any(plain in line for plain in PLAIN)
            assert not told, f"{line}\n{riddle!r} is a riddle; say: {instead}"
