"""What a run has learnt, evaluated by protocols, and kept in its directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxcl import keys
from jaxcl.config import recipe_of
from jaxcl.records import write_whole
from jaxcl.runs.asked import (
    BASELINES,
    asked_otherwise,
    check_asked,
    check_combined,
    file_of,
    in_words,
    variant,
)
from jaxcl.runs.directory import Run, open_run, silent
from jaxcl.runs.images import (
    fitted_to,
    images_to_evaluate,
    of_several_classes,
    with_test_images,
    without_trained_on,
)
from jaxcl.runs.joint import joint
from jaxcl.runs.marks import mark_begun, mark_complete
from jaxcl.runs.pixels import pixels, projected_pixels, projection_width
from jaxcl.tables import describe
from jaxcl.typing import Array, Images, PyTree

if TYPE_CHECKING:
    from jaxcl.encoder import Encoder
    from jaxcl.evaluate import Subject

# (what is evaluated, what is being done, the fraction of it that is done)
Progress = Callable[[str, str, float], None]


class Unevaluated(ValueError):
    """Some protocols could not be run; `results` are those of the others, which are kept."""

    def __init__(self, why: str, results: list[dict[str, Any]]):
        super().__init__(why)
        self.results = results


# What the features of several encoders may take of memory at a time, on the host and as banks on the device; and how
# large images may be that are kept from one evaluation to the next.
MOST_BYTES = 2**31


@dataclasses.dataclass(eq=False)
class Opened:
    """Images that evaluations of several runs have in common, read once; those of one data set at a time."""

    key: Any = None  # which data set it is
    sets: dict[str, tuple[Images, Images]] = dataclasses.field(default_factory=dict, repr=False)

    def get(
        self, key: Any, make: Callable[[], dict[str, tuple[Images, Images]]]
    ) -> dict[str, tuple[Images, Images]]:
        """The images of `key`, by `make` where they are others; very large ones are not kept."""
        if key is None or key != self.key:
            self.key, self.sets = None, {}  # the others go before these come
            made = make()
            if sum(images.images.nbytes for pair in made.values() for images in pair) > MOST_BYTES:
                return made
            self.key, self.sets = key, made
        return self.sets


@dataclasses.dataclass(eq=False)
class Members:
    """What evaluations share of runs that differ in the seed and in numeric knobs alone (`sweep.groups`): one program,
    compiled once, for the encoders of all, and what was computed of several at once.

    numbers
        the knobs, which the program takes as arguments, as a population's training step does.
    opened, data
        where images are kept, and what is the same for runs with the same images.
    """

    numbers: Sequence[str] = ()
    opened: Opened = dataclasses.field(default_factory=Opened, repr=False)
    data: Any = None
    _programs: dict[str, Callable[..., Array]] = dataclasses.field(default_factory=dict, repr=False)
    _subjects: dict[Path, dict[str, Subject]] = dataclasses.field(default_factory=dict, repr=False)
    _results: dict[tuple[Path, str, str], dict[str, Any]] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def sets(self, run: Run, say: Callable[[str], None]) -> dict[str, tuple[Images, Images]]:
        """A kind of label -> training and test images that carry it, for a run's evaluation."""

        def make() -> dict[str, tuple[Images, Images]]:
            return without_trained_on(run, images_to_evaluate(run, None, None), None, say)

        return self.opened.get(self.data, make)

    def embed(self, run: Run, what: str, encoder: Encoder) -> Partial:
        """The encoder as arguments of the program of all members; `what` is "embed" or "classify"."""
        if what not in self._programs:
            config, knobs, about = run.config, run.knobs, run.about

            def program(numbers: Mapping[str, Any], params: PyTree, state: PyTree, images: Array) -> Array:
                recipe = recipe_of(config, dataclasses.replace(knobs, **numbers), about)
                apply = recipe.method.embed if what == "embed" else recipe.classify
                assert apply is not None
                return apply(params, state, images)

            self._programs[what] = program
        numbers = {name: np.float32(getattr(run.knobs, name)) for name in self.numbers}
        return Partial(self._programs[what], numbers, encoder.params, encoder.state)


def evaluate_runs(
    run_dirs: Sequence[str | Path],
    *,
    protocols: Sequence[str] = ("knn", "linear"),
    members: Members,
    baselines: Sequence[str] = BASELINES,
    at_once: int = 1,
    say: Callable[[str], None] = silent,
) -> list[list[dict[str, Any]]]:
    """`evaluate_run` of runs that differ in the seed and in numbers alone, with the same results and files.

    at_once
        of how many encoders features are computed, and "knn", "knn200", "linear" and "transfer" are run, by one
        program mapped over them (`jax.vmap`); fewer where their features would take more than `MOST_BYTES`. 1: one
        after the other. Other protocols are always run so.

    Raises `Unevaluated`, with the runs, once all of them had their turn.
    """
    from jaxcl import evaluate
    from jaxcl.encoder import encoder_of

    folders = [Path(run_dir) for run_dir in run_dirs]
    made: list[list[dict[str, Any]]] = []
    failed: list[str] = []
    while folders:
        part = folders[:1]
        if at_once > 1 and len(folders) > 1 and jax.process_count() == 1:
            part = folders[:at_once]
            runs = [open_run(folder) for folder in part]
            sets = of_several_classes(members.sets(runs[0], silent))
            encoders = [members.embed(run, "embed", encoder_of(run, run.recipe.method.embed)) for run in runs]
            part = part[: _fit_at_once(encoders[0], sets)]
            if len(part) > 1:
                say(f"{len(part)} encoders are evaluated at once.")
                everyone = [evaluate.subjects(encoder, sets) for encoder in encoders[: len(part)]]
                for folder, own in zip(part, everyone, strict=True):
                    members._subjects[folder] = own
                for kind in sets:
                    subjects = [own[kind] for own in everyone]
                    evaluate.embed_together(subjects)
                    for protocol in [name for name in protocols if name in evaluate.EACH]:
                        try:
                            results = evaluate.EACH[protocol](subjects)
                        except (ValueError, FloatingPointError):
                            continue  # whose it is, and why, is said where they are run one by one
                        for folder, result in zip(part, results, strict=True):
                            members._results[folder, protocol, kind] = result
        for folder in part:
            try:
                how: dict[str, Any] = {"baselines": baselines, "members": members, "say": say}
                made.append(evaluate_run(folder, protocols=protocols, **how))
            except Unevaluated as error:
                made.append(error.results)
                failed.append(f"{folder}: {error}")
            members._subjects.pop(folder, None)  # with the features
        folders = folders[len(part) :]
    if failed:
        raise Unevaluated(" ".join(failed), [row for rows in made for row in rows])
    return made


def _fit_at_once(encoder: Partial, sets: Mapping[str, tuple[Images, Images]]) -> int:
    """Of how many encoders the features fit, thrice: as computed, stacked, and on the device."""
    images = [images for pair in sets.values() for images in pair]
    shape = (1, *images[0].images.shape[1:])
    width = jax.eval_shape(encoder, jax.ShapeDtypeStruct(shape, np.float32)).shape[1]
    return max(1, MOST_BYTES // (3 * 4 * width * sum(len(one.images) for one in images)))


def evaluate_run(
    run_dir: str | Path,
    *,
    protocols: Sequence[str] = ("knn", "linear"),
    baselines: Sequence[str] = BASELINES,
    parts: bool = False,
    layers: Sequence[int] = (),
    beside: Sequence[str | Path] = (),
    data: str | None = None,
    data_dir: str | None = None,
    evaluate_on: str | None = None,
    labels: str | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    encoded: bool = False,
    test_data: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = silent,
    trust: bool = False,
    members: Members | None = None,
) -> list[dict[str, Any]]:
    """Runs each protocol on the run's encoder, and on those of `BASELINES` that are asked for.

    Every result is a dict with "encoder", "protocol", "accuracy" (percent), "standard_error" and the protocol's
    settings, and with "labels" where the run's data has several kinds of them; those of one protocol are written to
    evaluations/PROTOCOL.json, each as soon as it is there, the run's own encoder first. A classifier that was trained
    along is the further protocol "joint". What is asked otherwise than by the run's knobs and the protocol itself
    (another split, labels, layout, range, or setting) is another question: its results have it in words as "variant",
    and lie in evaluations/PROTOCOL@VARIANT.json.

    baselines
        what stands beside it: "raw pixels", "untrained encoder" (as the run began), both or none. Raw pixels
        are projected at random to fewer numbers where a classifier of all of them would take very long; the result
        then has "projected_to".
    parts
        evaluate the parts of the representation that the recipe names (`Recipe.parts`) as well.
    layers
        of the head to evaluate as well, beside the representation h that goes in: 1 is the first, -1 the last, whose
        output z the loss sees. (SimCLR's table 3 and figure 8 compare h and g(h); SimCLRv2 fine-tunes from layer 1.)
    beside
        directories of other runs, whose encoders are evaluated on the same images: a supervised run of the same
        encoder as a reference, say. Their images must be of the same shape.
    data, data_dir
        another data set to evaluate on, as for `data.load` (resized to the run's images; gray ones become RGB if the
        run's are): results then have "data", and lie in evaluations/PROTOCOL@DATA.json. data_dir: where TFDS has
        them, or the run's own images, now; that of the run's knobs unless given.
    evaluate_on, labels, layout, value_range
        another split to test on, another file of labels, and another way to read folders and pixels, than the run's
        knobs say (of other data: than `data.load` would find; but value_range is the run's unless given). With
        test_data they are of that, and what classifiers are fitted to is read as it was.
    encoded
        of `data`: whether its images stay encoded, so that crops (of "linear_moco" and fine-tuning) are of whole
        images, and tests see the 7/8 in the middle, not all of the centre square.
    test_data
        other images of some of the same classes, by their names, in place of the test images, as for `data.load`:
        another kind of photograph, or "objectnet13:PATH" (`data.objectnet13`), as LooC is tested. What classifiers are
        fitted to stays. Results have it in "data", and lie in a file of their own.
    settings
        keywords that the protocols take beside their own defaults, as {"epochs": 10}; each goes to the protocols that
        have it, and is in the result.
    progress
        is called now and then with ("protocol, encoder", what is being done, the fraction of it that is done).
    say
        is called with a line for each result, and with notes, as that test images that were trained on are left out.
    trust
        execute the run's config whoever made it (`open_run`).
    members
        what it shares with evaluations of other runs that differ in numbers alone (`evaluate_runs`).

    Raises `Unevaluated`, a ValueError, at the end where some protocols could not be run; of several kinds of labels it
    names those on which. A kind whose training labels are all of one class is left out, where there are others.
    With several processes all of them must call it: they share the images among them, and process 0 writes.
    """
    from jaxcl import evaluate
    from jaxcl.encoder import at_layer, encoder_of  # Here: it opens runs by this file.

    run_dir, settings = Path(run_dir), dict(settings or {})
    taken = check_asked(protocols, baselines=baselines, settings=settings)
    how: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
    check_combined(data, test_data, encoded=encoded, **how)
    run = open_run(run_dir, trust=trust)
    recipe = run.recipe
    encoder = encoder_of(run, recipe.method.embed)
    otherwise = asked_otherwise(run, data, test_data, evaluate_on=evaluate_on, encoded=encoded, **how)
    if members is None:
        how["evaluate_on"] = evaluate_on
        sets = images_to_evaluate(run, data, data_dir, encoded=encoded, **({} if test_data else how))
        if test_data is not None:
            how = {name: value for name, value in how.items() if value is not None}
            sets = with_test_images(run, sets, test_data, data_dir, **{"evaluate_on": "test", **how})
        sets = without_trained_on(run, sets, test_data or data, say)
        if test_data is not None:
            data = ", ".join(filter(None, (data, f"tested on {test_data}")))
        tested = (line for _, test in sets.values() for line in (describe(test), *test.notes))
        for line in dict.fromkeys(tested):
            say(line)
        own_embed = encoder.embed
    else:
        sets = members.sets(run, say)
        own_embed = members.embed(run, "embed", encoder)
    if seen := max(fitted_to(train, test) for train, test in sets.values()):
        say(
            f"{seen} of the test images are also training images of the classifiers, so these are not accuracies of"
            " new images; with kNN, each finds itself as its nearest neighbor. --evaluate-on takes another split."
        )
    joint_test = next(iter(sets.values()))[1]
    sets = of_several_classes(sets)
    # One's own first: the answer that one waits for.
    named: dict[str, Callable[[Array], Array]] = {run_dir.name: own_embed}
    if parts:
        if not recipe.parts:
            raise ValueError(f"The config of {run_dir} names no parts of its representation (Recipe.parts).")
        named |= {name: encoder_of(run, apply).embed for name, apply in recipe.parts.items()}
    named |= {f"layer {k} of the head": encoder_of(run, at_layer(run, k)).embed for k in layers}
    steps = dict.fromkeys(named, encoder.step)
    for other in beside:
        theirs = open_run(other, trust=trust)
        if theirs.about.shape != run.about.shape or Path(other).name in named:
            raise ValueError(
                f"--beside: {other} must have images of the same shape as {run_dir} ({theirs.about.shape},"
                f" {run.about.shape}), and a name that is none of {', '.join(named)}."
            )
        found_there = encoder_of(theirs, theirs.recipe.method.embed)
        named[Path(other).name], steps[Path(other).name] = found_there.embed, found_there.step
    if "untrained encoder" in baselines:
        try:
            named["untrained encoder"] = encoder_of(run, recipe.method.embed, untrained=True).embed
            steps["untrained encoder"] = encoder.step
        except FileNotFoundError as error:  # what it was started from
            say(f"Without the untrained encoder: {error}")
    width = None
    if "raw pixels" in baselines:
        steps["raw pixels"] = encoder.step
        width = projection_width(sets, protocols)
        named["raw pixels"] = pixels if width is None else projected_pixels(width)
        if width is not None:
            say(
                f"The raw pixels are projected at random to {width} numbers an image: a classifier of all of them would"
                " take very long. --baselines untrained leaves them out."
            )

    shown = [*BASELINES, *(name for name in named if name not in BASELINES)]  # in files and tables

    folder = run_dir / "evaluations"
    found: dict[str, list[dict[str, Any]]] = {protocol: [] for protocol in protocols}
    failed: dict[tuple[str, str], str] = {}
    first = jax.process_index() == 0
    folder.mkdir(exist_ok=True)
    asked = {name: variant(otherwise, evaluate.PROTOCOLS[name], taken[name]) for name in protocols}
    asked["joint"] = in_words(otherwise)
    own = [name for name in protocols if data is None and not asked[name]]
    if first and own:
        mark_begun(run_dir, own)

    def said_of(protocol: str) -> dict[str, Any]:
        more: dict[str, Any] = {} if data is None else {"data": data}
        more |= {"evaluated_on": evaluate_on} if "evaluate_on" in otherwise else {}
        return more | ({"variant": asked[protocol]} if asked[protocol] else {})

    def keep(protocol: str, rows: list[dict[str, Any]]) -> None:
        if first:
            write_whole(folder / file_of(protocol, data, asked[protocol]), json.dumps(rows, indent=2) + "\n")

    for name, embed_fn in named.items():
        # One encoder after the other: its features serve all protocols, and only those of one are kept.
        mine = members is not None and name == run_dir.name
        subjects = members._subjects.get(run_dir) if members is not None and mine else None
        subjects = subjects or evaluate.subjects(embed_fn, sets)
        for protocol, rows in found.items():
            for kind, subject in subjects.items():
                if (protocol, kind) in failed:
                    continue
                key = keys.evaluation_key(run.knobs.seed)
                report = None if progress is None else partial(progress, f"{protocol}, {name}")
                known = None
                if members is not None and mine:
                    known = members._results.pop((run_dir, protocol, kind), None)
                try:
                    result = known or evaluate.PROTOCOLS[protocol](
                        key, subject, views=recipe.probe_views, progress=report, **taken[protocol]
                    )
                except (ValueError, FloatingPointError) as error:
                    failed[protocol, kind] = f"{protocol}{f', {kind}' if kind else ''}: {error}"
                    if len(protocols) > 1 or len(subjects) > 1:
                        say(failed[protocol, kind])
                    continue
                more: dict[str, Any] = {"labels": kind} if kind else {}
                more |= said_of(protocol)
                more |= {"projected_to": width} if name == "raw pixels" and width is not None else {}
                rows.append({"encoder": name, "step": steps[name], **more, **result})
                rows.sort(key=lambda row: shown.index(row["encoder"]))
                say(f"{protocol}, {name}{f', {kind}' if kind else ''}: {result['accuracy']:.1f} %")
                if result.get("converged") is False:
                    say(
                        f"{protocol}, {name}: the fit did not converge in {result['settings']['iterations']}"
                        " iterations; the accuracy is that of the last one. --set iterations=N allows more."
                    )
                keep(protocol, rows)
    results = [row for rows in found.values() for row in rows]
    if recipe.classify is not None and data is None:
        classifier = encoder_of(run, recipe.classify)
        classify = classifier.embed if members is None else members.embed(run, "classify", classifier)
        try:
            found_along = joint(classify, joint_test, run.about.classes)
            row = {"encoder": run_dir.name, "step": encoder.step, **said_of("joint"), **found_along}
            keep("joint", [row])
            results.append(row)
        except ValueError as error:
            if own:
                failed["joint", ""] = f"joint: {error}"
            else:  # asked by other labels, of which the classifier need not know
                say(f"Without joint: {error}")
    if first and own:
        incomplete = {protocol for protocol, _ in failed}
        mark_complete(run_dir, [name for name in own if name not in incomplete], named)
    if failed:
        raise Unevaluated(" ".join(failed.values()), results)
    return results
