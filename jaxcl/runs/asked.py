"""What an evaluation is asked: by which protocols, beside what, with which settings; and in which words it asks
otherwise than a run's own question is."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxcl.config import resolved
from jaxcl.runs.directory import Run

# What may stand beside a run's encoder in an evaluation, by name.
BASELINES = ("raw pixels", "untrained encoder")

# Setting -> (which other one decides whether it is read, in which words that must be given, whether a value will do).
NEEDS: dict[str, tuple[str, str, Callable[[Any], bool]]] = {
    "temperature": ("vote", "vote=weighted", lambda vote: vote == "weighted"),
    "drops": ("schedule", "schedule=steps", lambda schedule: schedule == "steps"),
    "drop_factor": ("schedule", "schedule=steps", lambda schedule: schedule == "steps"),
    "min_area": (
        "augmentation",
        "augmentation=torchvision (or tensorflow)",
        lambda augmentation: augmentation in ("tensorflow", "torchvision"),
    ),
    "trust_coefficient": ("optimizer", "optimizer=lars", lambda optimizer: optimizer == "lars"),
    "dropout": ("hidden", "a hidden layer, as hidden=1024", lambda hidden: hidden != 0),
}

# A protocol's annotation -> the kind of its values, in words, and an example.
KINDS = {
    "int": ("whole number", "10"),
    "float": ("number", "0.5"),
    "bool": ("truth value", "true"),
    "str": ("word", '"none"'),
    "Sequence[float]": ("list of numbers", "[0.5, 0.9]"),
    "Sequence[str]": ("list of words", '["fog"]'),
}

# A file's name is cut to so many letters; what is cut off is told by a digest.
LONGEST = 200


def check_asked(
    protocols: Sequence[str], *, baselines: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The settings that each protocol takes. Raises ValueError, before a run is looked at, where there is no such
    protocol or baseline, or where no protocol takes a setting."""
    from jaxcl import evaluate

    if strange := [name for name in baselines if name not in BASELINES]:
        raise ValueError(f"There is no baseline {', '.join(strange)}; there are {', '.join(BASELINES)}.")
    return settings_taken(evaluate.PROTOCOLS, protocols, settings or {})


def settings_taken(
    known: Mapping[str, Any], protocols: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The settings that each protocol takes: those that it has and, with the others, reads.

    Raises ValueError for an unknown protocol, for a setting that none of them has or reads, and for a value of another
    kind or out of its range.
    """
    from jaxcl.evaluate.checks import check_numbers

    unknown = [name for name in protocols if name not in known]
    if unknown:
        raise ValueError(f"There is no protocol {', '.join(unknown)}; there are {', '.join(known)}.")
    taken: dict[str, dict[str, Any]] = {}
    has: dict[str, list[str]] = {}
    unread: dict[str, list[str]] = {}
    for protocol in protocols:
        own = parameters_of(known[protocol])
        has[protocol] = list(own)
        given = {n: _of_kind(protocol, own[n], value) for n, value in settings.items() if n in own}
        check_numbers(**given)
        now = {name: parameter.default for name, parameter in own.items()} | given
        for name in [name for name in given if name in NEEDS]:
            other, words, serves = NEEDS[name]
            if other in now and not serves(now[other]):
                unread.setdefault(name, []).append(
                    f"{protocol} reads {name} only with {words}, and its {other} is {json.dumps(now[other])}"
                )
                del given[name]
        taken[protocol] = given
    strange = [name for name in settings if not any(name in names for names in has.values())]
    if strange:
        lists = "; ".join(
            f"{name} has no setting {', '.join(strange)}; it has {', '.join(names) or 'none'}"
            for name, names in has.items()
        )
        raise ValueError(f"{lists}.")
    idle = [name for name in unread if not any(name in given for given in taken.values())]
    if idle:
        why = "; ".join(line for name in idle for line in unread[name])
        raise ValueError(f"{why}. Set that too, or leave {', '.join(idle)} out.")
    return taken


def parameters_of(protocol: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings that a protocol has, with their defaults."""
    parameters = inspect.signature(protocol).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("views", "progress")
    }


def _of_kind(protocol: str, parameter: inspect.Parameter, value: Any) -> Any:
    """A setting's value as the kind that the protocol takes, or an error that says which that is."""
    annotation, default = parameter.annotation, parameter.default
    words = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    base = words.removesuffix(" | None")
    if base not in KINDS:  # not said: that of the default
        base = type(default).__name__
    kind, example = KINDS.get(base, ("", ""))
    if not kind or (value is None and words.endswith(" | None")):
        return value
    if base == "int" and _is_number(value) and float(value).is_integer():
        return int(value)
    if base == "float" and _is_number(value):
        return float(value)
    if base in ("bool", "str") and type(value).__name__ == base:
        return value
    if base == "Sequence[float]" and isinstance(value, list | tuple) and all(map(_is_number, value)):
        return [float(one) for one in value]
    if (
        base == "Sequence[str]"
        and isinstance(value, list | tuple)
        and all(isinstance(one, str) for one in value)
    ):
        return list(value)
    if default is not None and not isinstance(default, list | tuple):
        example = json.dumps(default)
    raise ValueError(f"{protocol}'s setting {parameter.name} is a {kind}, as {example}; got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- the run's own question, or another ------------------------------------------------------------------------------


def check_combined(data: str | None, test_data: str | None, *, encoded: bool, **how: Any) -> None:
    """Raises ValueError for options that would do nothing, or that may mean one thing or another."""
    if encoded and data is None:
        raise ValueError(
            "--encoded is for the images of --data; the run's own are read as in training. Leave it out, or name images"
            " with --data."
        )
    given = [name for name, value in how.items() if value is not None]
    if given and data is not None and test_data is not None:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{named} may be meant for --data or for --test-data. Leave out one of these two, or lay the images out so"
            " that they are read without: a folder a class, pixels of 8 bits."
        )


def asked_otherwise(run: Run, data: str | None, test_data: str | None, **given: Any) -> dict[str, Any]:
    """Of evaluate_on, labels, layout, value_range and encoded, None where not given, those that differ from the run's
    knobs; of other data, from how it is read without them."""
    given = {name: value for name, value in given.items() if value is not None}
    encoded = given.pop("encoded", False)
    if data is None and test_data is None:
        before, now = resolved(run.knobs), resolved(dataclasses.replace(run.knobs, **given))
        found = {
            name: getattr(now, name) for name in given if _other(getattr(now, name), getattr(before, name))
        }
    else:
        usual = {"evaluate_on": "test", "layout": "auto", "labels": None, "value_range": None}
        found = {name: value for name, value in given.items() if _other(value, usual[name])}
    return found | ({"encoded": True} if encoded else {})


def variant(otherwise: Mapping[str, Any], protocol: Callable[..., Any], taken: Mapping[str, Any]) -> str:
    """In which words a protocol's result is of another question: of `asked_otherwise`, and with settings that are not
    the protocol's own; "" where it is of the usual one.

    >>> def knn(key, subject, *, k: int = 10, vote: str = "majority"): ...
    >>> variant({"evaluate_on": "train"}, knn, {"k": 1, "vote": "majority"}), variant({}, knn, {"k": 10})
    ('evaluate_on=train, k=1', '')
    """
    own = parameters_of(protocol)
    changed = {name: value for name, value in taken.items() if _other(value, own[name].default)}
    return in_words({**otherwise, **changed})


def in_words(asked: Mapping[str, Any]) -> str:
    """Names and values as `--set` takes them.

    >>> in_words({"drops": [0.5, 0.9], "schedule": "steps"})
    'drops=[0.5,0.9], schedule=steps'
    """
    return ", ".join(f"{name}={_word(value)}" for name, value in asked.items())


def file_of(protocol: str, *parts: str | None) -> str:
    """The name of a protocol's results in evaluations/, with what they are of in letters that a file's name may have.

    >>> file_of("knn", None, ""), file_of("knn", "npz:/a/b.npz", "k=1, vote=weighted")
    ('knn.json', 'knn@npz_a_b.npz@k_1_vote_weighted.json')
    """
    said = [part for part in parts if part]
    name = "@".join([protocol, *(re.sub(r"[^\w.-]+", "_", part) for part in said)])
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256('@'.join(said).encode()).hexdigest()[:12]}"
    return f"{name}.json"


def _other(one: Any, another: Any) -> bool:
    return _plain(one) != _plain(another)


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
