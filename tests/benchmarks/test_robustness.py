"""What hangs on encoder and extraction: that the runs compare what they are named for, and what is made of them."""

import argparse
import importlib
import itertools
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import methods
from jaxcl.config import load_config
from jaxcl.typing import About, Net

HOUSE = Path(__file__).parents[2]


def imported(name):
    sys.path.insert(0, str(HOUSE / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(HOUSE / "benchmarks"))


five_parts, robustness = imported("five_parts"), imported("robustness")
EVERY = {at: knobs for name in robustness.ROBUSTNESS for at, knobs in robustness.settings(name).items()}
EXTRACTIONS = [at for at in EVERY if at[1] == "extraction"]
ABOUT = About(50_000, (32, 32, 3), ())
NARROW = {"features": "2", "out": "8", "depth": "1"}


@cache
def parts_of(at, **changes):
    """The parts of a choice, of a narrow network."""
    config = robustness.ROBUSTNESS[at[0]][0]
    knobs = five_parts.every_knob(config, tuple((EVERY[at] | NARROW | changes).items()))
    return load_config(five_parts.path_of(config)).recipe(knobs, ABOUT).method.five_parts


def drawn(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), shapes)


@cache
def encoder():
    """The encoder of all of them, with no kernel zero (as the second of each layer is at first): what its maps are
    like, and (a gradient by each map) -> the names of the leaves that it moves."""
    (net, *_) = (parts_of(at).encoder["encoder"] for at in EXTRACTIONS)
    assert {EVERY[at]["encoder"] for at in EXTRACTIONS} == {"amdim"}
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 32, 32, 3)), jnp.float32)
    shapes, state = jax.eval_shape(net.init, jax.random.key(0), images)
    params, state = drawn(shapes), jax.tree.map(lambda x: jnp.ones(x.shape), state)

    def maps_of(params):
        return net.apply(params, state, images, train=True)[0]

    pull = jax.jit(lambda gradients: jax.vjp(maps_of, params)[1](gradients)[0])

    def moved(gradients):
        leaves = jax.tree_util.tree_leaves_with_path(pull(gradients))
        return {jax.tree_util.keystr(path) for path, x in leaves if np.any(x)}

    return jax.eval_shape(maps_of, params), moved


def moved(at, **changes):
    """The leaves of the encoder that what is evaluated depends on, and those that the loss moves."""
    parts, (shapes, moved_by) = parts_of(at, **changes), encoder()
    as_given = Net(lambda key, x: (drawn(shapes), ()), lambda maps, state, x, *, train: (maps, state))
    method = methods.amdim(
        views=lambda key, batch: (batch["image"], batch["image"]),
        encoder=as_given,
        loss=parts.loss["loss"],
        **parts.extraction,
    )
    batch = {"image": jnp.zeros((4, 32, 32, 3)), "index": jnp.arange(4)}
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    by_loss = jax.jit(jax.grad(lambda p: method.loss(p, state, jax.random.key(1), batch)[0]))
    by_features = jax.grad(lambda p: jnp.sum(jnp.sin(method.embed(p, state, batch["image"]))))
    return moved_by(by_features(params)["encoder"]), moved_by(by_loss(params)["encoder"])


@pytest.mark.parametrize("at", EXTRACTIONS, ids="-".join)
def test_every_extraction_trains_all_that_is_under_what_is_evaluated(at):
    """Under the 5 x 5 map: the first convolution with its bias, and four layers (one a block) of two kernels."""
    under, trained = moved(at)
    assert len(under) == 2 + 4 * 2
    assert under <= trained


def test_what_compares_the_5_x_5_map_does_not_train_the_last_one():
    """Two layers of two kernels, and the norm's scale and bias, lie above it."""
    under, trained = moved(("AMDIM, vector embedded", "extraction", "local"), evaluated_width="0")
    assert len(under - trained) == 2 * 2 + 2


@cache
def compared(at):
    """The pairs of maps that a choice compares."""
    extraction = parts_of(at).extraction
    maps = extraction["extract"](drawn(encoder()[0]))
    return [(np.asarray(maps[a]), np.asarray(maps[b])) for a, b in extraction["compare"]]


def test_all_choices_of_an_exchange_compare_other_maps():
    for one, other in itertools.combinations(EXTRACTIONS, 2):
        if one[0] == other[0]:
            a, b = compared(one), compared(other)
            alike = len(a) == len(b) and all(
                x.shape == y.shape and np.allclose(x, y)
                for pair, with_it in zip(a, b, strict=True)
                for x, y in zip(pair, with_it, strict=True)
            )
            assert not alike, (one, other)


def test_the_average_of_a_single_position_is_the_map_itself():
    """Why YADIM's `average` is not among its choices."""
    last, average = (
        parts_of(("YADIM", "extraction", "last"), extraction=word).extraction["extract"]
        for word in ("last", "average")
    )
    maps = (jnp.ones((2, 3, 3, 4)), jnp.arange(6.0).reshape(2, 1, 1, 3))
    np.testing.assert_array_equal(last(maps)[0], average(maps)[0])


def test_all_extractions_are_evaluated_by_as_many_features():
    widths = {at: five_parts.features(robustness.ROBUSTNESS[at[0]][0], EVERY[at]) for at in EXTRACTIONS}
    assert set(widths.values()) == {64}


# --- what is made of the runs ----------------------------------------------------------------------------------------


def kept(accuracy, **more):
    rows = [
        {
            "protocol": p,
            "encoder": "trained",
            "accuracy": accuracy + (p == "linear") * 10,
            "knobs": {"data_dir": "/there", "data": "npz:there"},
        }
        for p in robustness.PROTOCOLS
    ]
    made = {"versions": {"jaxcl": "0.1.0", "jax": "0.12"}, "device": "1 x cpu"}
    return {"results": rows, "knobs": {}} | made | more


def cells(chosen):
    """(method, exchanged, choice) -> its accuracies by seed, None where one diverged; the others have 40, 41, 42."""
    made = {}
    for at in EVERY:
        values = chosen.get(at, (40.0, 41.0, 42.0))
        made[at] = robustness.Cell(
            ("0", "1", "2"),
            {
                str(seed): kept(x) if x is not None else kept(0.0, results=[], diverged="at step 7")
                for seed, x in enumerate(values)
            },
            64,
        )
    return made


AMDIM, YADIM = robustness.ROBUSTNESS
LOCAL, LARGER = (AMDIM, "extraction", "local"), (YADIM, "extraction", "larger")


def test_p_values_of_a_table_are_corrected_for_all_of_them():
    """Differences by seed of -1, -2, -3 have t = -2 / (1 / sqrt 3), p 0.0742; of -2, -2, -2.2 t = -31, p 0.00104. With
    kNN and linear alike these are four p values: times 4 the smallest, the others after them."""
    _, rows = robustness.each_choice(cells({LOCAL: (39.0, 39.0, 39.0), LARGER: (38.0, 39.0, 39.8)}))
    said = {tuple(row[:3]): row for row in rows}
    assert said[LOCAL][6] == said[LOCAL][9] == "-2.0 ± 2.5, p 0.15 (n=3)"
    assert said[LARGER][6] == said[LARGER][9] == "-2.1 ± 0.3, p 0.0042 (n=3)"
    assert said[AMDIM, "extraction", "last"][6] == "+0.0 ± 0.0 (n=3)"
    assert said[AMDIM, "extraction", "scales"][6] == ""


def test_what_one_method_loses_is_compared_by_seed():
    """AMDIM loses a third of 1, 2, 3, YADIM half of 2, 2, 2.2: -0.667, -0.333, -0.1 more, whose t is -2.230, p 0.1555;
    kNN and linear alike, so twice that."""
    header, (encoder, extraction) = robustness.beside_each_other(
        cells({LOCAL: (39.0, 39.0, 39.0), LARGER: (38.0, 39.0, 39.8)})
    )
    name = "AMDIM, vector embedded"
    assert header[:2] == ["exchanged", f"knn, {name}: mean of all others less its own"]
    assert header[3] == f"knn, YADIM - {name}"
    assert encoder[1:4] == ["0.0 ± 0.0 (n=3)", "0.0 ± 0.0 (n=3)", "+0.0 ± 0.0 (n=3)"]
    assert extraction[1:4] == ["-0.7 ± 0.8 (n=3)", "-1.0 ± 0.1 (n=3)", "-0.4 ± 0.7, p 0.31 (n=3)"]


def test_a_run_that_diverged_is_shown_and_its_seed_left_out():
    made = cells({LOCAL: (39.0, None, 39.0), LARGER: (None, None, None)})
    tables = robustness.tables_of(made)
    _, rows = robustness.each_choice(made)
    said = {tuple(row[:3]): row for row in rows}
    assert said[LOCAL][4].endswith("(n=2), 1 diverged")
    assert said[LOCAL][6].endswith("(n=2)")
    assert said[LARGER][4] == "3 diverged"
    assert said[LARGER][6] == ""
    assert list(robustness.others_less_own(made, AMDIM, "extraction", "knn")) == ["0 1 x cpu", "2 1 x cpu"]
    assert not robustness.others_less_own(made, YADIM, "extraction", "knn")
    assert "extraction local with seed 1 (at step 7)" in tables[-1]
    robustness.picture(made)


def test_a_classifier_that_had_not_converged_is_named_with_its_seeds():
    made = cells({})
    for seed, converged in (("0", False), ("1", True), ("2", False)):
        made[LOCAL].kept[seed]["results"][1]["converged"] = converged
    made[LARGER].kept["1"]["results"][1]["converged"] = False
    said = [table for table in robustness.tables_of(made) if "converged" in table]
    assert [one.partition(": ")[2] for one in said] == [
        f"{' '.join(LOCAL)} (seed 0, 2); {' '.join(LARGER)} (seed 1)."
    ]
    assert not any("converged" in table for table in robustness.tables_of(cells({})))


def test_runs_of_two_devices_are_not_subtracted():
    made = cells({LOCAL: (39.0, 39.0, 39.0)})
    made[LOCAL].kept["1"]["device"] = "1 x NVIDIA H100"
    _, rows = robustness.each_choice(made)
    (local,) = (row for row in rows if tuple(row[:3]) == LOCAL)
    assert local[4].endswith("(n=3)")
    assert local[6].startswith("-2.0 ")  # of 40 and 42, without 41
    assert local[6].endswith("(n=2)")
    assert list(robustness.others_less_own(made, AMDIM, "extraction", "knn")) == ["0 1 x cpu", "2 1 x cpu"]
    made = cells({LOCAL: (39.0, 39.0, 39.0), LARGER: (38.0, 39.0, 39.8)})
    for at in EVERY:  # all of a seed elsewhere
        made[at].kept["1"]["device"] = "1 x NVIDIA H100"
    _, (_, extraction) = robustness.beside_each_other(made)
    assert extraction[3].endswith("(n=3)")
    for at in EVERY:
        if at[0] == AMDIM:
            made[at].kept["1"]["device"] = "1 x cpu"
    _, (_, extraction) = robustness.beside_each_other(made)
    assert (extraction[1][-5:], extraction[2][-5:]) == ("(n=3)", "(n=3)")
    assert extraction[3].endswith("(n=2)")


def test_runs_that_share_a_device_share_its_memory(monkeypatch):
    given = {}
    monkeypatch.setattr(subprocess, "run", lambda *args, env, **rest: given.update(env))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    five_parts.start(["nothing"], 0)
    assert (given["JAX_PLATFORMS"], given["XLA_PYTHON_CLIENT_PREALLOCATE"]) == ("cuda,cpu", "false")
    monkeypatch.delenv("JAX_PLATFORMS")
    five_parts.start(["nothing"], 0)
    assert given["JAX_PLATFORMS"] == "cpu"


# --- keeping ---------------------------------------------------------------------------------------------------------


RUN = five_parts.Run("yadim", robustness.SAME | {"seed": "0"}, ("knn",), False)


def swept(work, rows, **diverged):
    """What `jaxcl sweep` leaves."""
    folder = RUN.folder(work) / "seed=0"
    folder.mkdir(parents=True)
    (folder / "knobs.json").write_text("{}")
    (folder / "run.json").write_text(
        '{"versions": {"jaxcl": "0.1.0", "jax": "0.12", "flax": "1"}, "device": "1 x cpu"}'
    )
    (folder.parent / "sweep.json").write_text(json.dumps(rows))
    if diverged:
        (folder / "diverged.json").write_text(json.dumps(diverged))


def test_what_is_kept_says_by_what_it_was_made_and_is_refused_to_others(tmp_path):
    swept(tmp_path / "work", kept(40.0)["results"])
    RUN.keep(tmp_path / "work", tmp_path)
    found = RUN.read(tmp_path)
    assert (found["versions"], found["device"]) == ({"jaxcl": "0.1.0", "jax": "0.12"}, "1 x cpu")
    assert (found["knobs"]["out"], found["knobs"]["learning_rate"]) == (128, 1e-3)
    assert "diverged" not in found
    assert "there" not in RUN.kept(tmp_path).read_text()
    assert len(found["results"]) == 2
    file = RUN.kept(tmp_path)
    file.write_text(json.dumps(found | {"knobs": found["knobs"] | {"clip": 10.0}}))
    with pytest.raises(
        SystemExit, match=r"--clip: the run has 10.0, you ask for 20.0.*delete .* to have it anew"
    ):
        RUN.read(tmp_path)
    file.write_text("[]")
    with pytest.raises(SystemExit, match="delete .* to have it anew"):
        RUN.read(tmp_path)


def test_a_run_that_diverges_is_kept_and_the_others_go_on(tmp_path, monkeypatch):
    other, done = RUN._replace(knobs=RUN.knobs | {"seed": "1"}), []

    def fails(command, core, log):
        if command[command.index("--seed") + 1] == "0":
            swept(tmp_path, [], why="Step 7 was not taken: its loss was nan. The run lies elsewhere.")
            raise subprocess.CalledProcessError(1, command)
        done.append(command)
        folder = other.folder(tmp_path) / "seed=1"
        folder.mkdir(parents=True)
        (folder / "knobs.json").write_text("{}")
        (folder / "run.json").write_text(
            '{"versions": {"jaxcl": "0.1.0", "jax": "0.12"}, "device": "1 x cpu"}'
        )
        (folder.parent / "sweep.json").write_text(json.dumps(kept(40.0)["results"]))

    monkeypatch.setattr(five_parts, "start_logged", fails)
    own = argparse.Namespace(work=tmp_path, kept=tmp_path, core=[0])
    five_parts.train([RUN, other], own)
    assert RUN.read(tmp_path)["diverged"] == "Step 7 was not taken: its loss was nan"
    assert not RUN.read(tmp_path)["results"]
    assert len(done) == 1
    assert other.read(tmp_path)["results"]
    five_parts.train([RUN, other], own)  # neither is done again
    assert len(done) == 1


def test_a_run_that_fails_otherwise_ends_the_experiment(tmp_path, monkeypatch):
    def fails(command, core, log):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(five_parts, "start_logged", fails)
    with pytest.raises(subprocess.CalledProcessError):
        five_parts.train([RUN], argparse.Namespace(work=tmp_path, kept=tmp_path, core=[0]))
