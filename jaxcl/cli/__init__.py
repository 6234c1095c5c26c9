"""The command line: `main` takes the words of a command and returns the status to end with."""

from jaxcl.cli.command import main
from jaxcl.cli.errors import in_a_sentence
from jaxcl.cli.shows import progress_bar
from jaxcl.cli.texts import HELP
from jaxcl.cli.words import knobs_of, option, settings_of, values_of, words_of

__all__ = [
    "HELP",
    "in_a_sentence",
    "knobs_of",
    "main",
    "option",
    "progress_bar",
    "settings_of",
    "values_of",
    "words_of",
]
