"""The command line: which command is meant, and how it ends."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Sequence

from jaxcl.cli.errors import end_alone, ended_by_another, in_a_sentence, warnings_in_sentences
from jaxcl.cli.many import report, study, sweep
from jaxcl.cli.results import embed, evaluate, export, plot, status
from jaxcl.cli.texts import HELP
from jaxcl.cli.training import configs, parts, plan, replay, train, views
from jaxcl.interrupts import heard


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the words name (None: those of the program), and returns the status to end with."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    commands = {
        "train": train,
        "plan": plan,
        "evaluate": evaluate,
        "embed": embed,
        "export": export,
        "plot": plot,
        "report": report,
        "sweep": sweep,
        "study": study,
        "replay": replay,
        "views": views,
        "parts": parts,
        "configs": configs,
        "status": status,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if arguments[0] == "--version":
        from jaxcl import __version__

        print(f"jaxcl {__version__}")
        return 0
    if arguments[0] not in commands:
        near = difflib.get_close_matches(arguments[0], commands, 1)
        hint = f"Did you mean `jaxcl {near[0]}`?" if near else "Try `jaxcl --help`."
        print(f"jaxcl knows the commands {', '.join(commands)}; not {arguments[0]!r}. {hint}")
        return 2
    try:
        with heard(), warnings_in_sentences(arguments[0]):
            return commands[arguments[0]](arguments[1:])
    except Exception as error:
        ended_by_another(error)
        # An error of the user's world is a sentence, not a traceback.
        sentence = in_a_sentence(error)
        if sentence is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"jaxcl {arguments[0]}: {sentence}", file=sys.stderr)
        return end_alone(1, sentence)
    except KeyboardInterrupt as interrupt:
        if hasattr(interrupt, "step"):
            print(f"jaxcl {arguments[0]}: {interrupt} The same command resumes the run.", file=sys.stderr)
            return 130
        print(f"jaxcl {arguments[0]}: interrupted.", file=sys.stderr)
        return end_alone(130, "it was interrupted")
    except SystemExit as end:
        if hasattr(end, "step"):
            sentence = f"Preempted after step {end.step}, and saved. The same command resumes the run."
            print(f"jaxcl {arguments[0]}: {sentence}", file=sys.stderr)
        raise
