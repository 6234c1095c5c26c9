"""A sweep finds what can be trained together, and each run is the one that it would be alone."""

import json
import shutil
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcl.answer import _record
from jaxcl.cli import main, values_of
from jaxcl.cli.words import grid_of
from jaxcl.config import knobs_to_json, load_config, resolved
from jaxcl.evaluate import features
from jaxcl.plan import DoesNotFit
from jaxcl.reads import knobs_read_by
from jaxcl.runs import Unevaluated, create_or_resume, evaluate_run, evaluation, evaluations, open_run
from jaxcl.runs.marks import FILE, evaluated, mark_begun, mark_complete
from jaxcl.study import Study
from jaxcl.sweep import combinations, groups, name_of, sweep, write_results
from jaxcl.swept import folders_of, last_step
from jaxcl.tables import accuracy_table, differences_table, fewest_seeds, sweep_table
from jaxcl.train.log import read_metrics
from jaxcl.typing import About

CONFIG = """
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optax

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets
from jaxcl.data import Data
from jaxcl.typing import Images


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    epochs: float = 2
    log_every: int = 2
    temperature: float = 0.2
    brightness: float = 1.0
    width: int = 4


def data(knobs):
    def split(n, salt):
        pixels = np.random.default_rng(salt).integers(0, 200, (n, 8, 8, 3))
        labels = np.arange(n) % 2
        pixels = knobs.brightness * pixels + 30 * labels[:, None, None, None]
        return Images("noise", pixels.astype(np.uint8), labels, ("a", "b"))

    about = About(16, (8, 8, 3), ("a", "b"))
    n, salt = (16, 0) if knobs.evaluate_on == "train" else (12, 1)
    return Data("noise", train=lambda: split(16, 0), test=lambda: split(n, salt), about=lambda: about)


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.flip())
    loss = losses.keyless(losses.nt_xent, temperature=knobs.temperature)
    encoder = nets.conv_n(features=(4,), dense=knobs.width, norm=norm)
    head = nets.mlp_head(norm=norm, hidden=(), out=8)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    rate = optax.constant_schedule(knobs.learning_rate)
    return Recipe(method, optax.sgd(knobs.learning_rate), rate, views, steps, knobs.batch_size)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "noise.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


def test_runs_that_differ_in_numbers_and_seeds_are_one_group(config):
    module = load_config(config)
    runs = [
        module.Knobs(temperature=t, seed=s, learning_rate=r) for t, s, r in [(0.1, 0, 0.1), (0.5, 1, 0.2)]
    ]
    found = groups(module, runs)
    assert [group.members for group in found] == [(0, 1)]
    assert set(found[0].numbers) == {"temperature", "learning_rate"}


def test_what_shapes_the_program_or_the_images_stands_apart(config):
    module = load_config(config)
    read = knobs_read_by(module.data, {"brightness", "seed", "evaluate_on"})
    assert read == {"brightness", "evaluate_on"}
    runs = [
        module.Knobs(),
        module.Knobs(seed=1),
        module.Knobs(width=8),
        module.Knobs(epochs=3.0),
        module.Knobs(brightness=0.5),
        module.Knobs(weight_decay=0.0),  # off, which is another program
        module.Knobs(input="host"),
        module.Knobs(knn_every=1.0),  # another cadence
        module.Knobs(temperature=0.9),
    ]
    assert [group.members for group in groups(module, runs)] == [
        (0, 1, 8),
        (2,),
        (3,),
        (4,),
        (5,),
        (6,),
        (7,),
    ]


def test_a_number_that_is_off_stands_apart_also_where_it_alone_differs(config):
    module = load_config(config)
    runs = [module.Knobs(weight_decay=decay) for decay in (0.0, 1e-4, 1e-3)]
    assert [group.members for group in groups(module, runs)][0] == (0,)
    runs = [module.Knobs(temperature=0.1), module.Knobs(temperature=1), module.Knobs(temperature=0.5)]
    assert groups(module, runs) == [((0, 1, 2), ("temperature",))]


def test_a_sweep_together_is_the_sweep_one_by_one(config, tmp_path, capsys, monkeypatch):
    opened = []
    looked = evaluation.images_to_evaluate
    monkeypatch.setattr(
        evaluation, "images_to_evaluate", lambda run, *rest: opened.append(run.dir) or looked(run, *rest)
    )
    command = ["sweep", str(config), "--protocol", "knn", "--temperature", "0.5", "--seed", "0..1"]
    assert main([*command, "--run-dir", str(tmp_path / "all"), "--together", "4"]) == 0
    out = capsys.readouterr().out
    assert "2 runs together" in out
    assert "2 encoders are evaluated at once" in out
    assert len(opened) == 1
    compiled = features._forward._cache_size()
    assert "Fewer than three seeds" in out
    assert main([*command, "--run-dir", str(tmp_path / "each")]) == 0  # on a CPU one after the other
    assert "runs together" not in capsys.readouterr().out
    # Their images are read once, and one program embeds them for both.
    assert len(opened) == 2
    assert features._forward._cache_size() == compiled + 1
    for folder in sorted((tmp_path / "all").glob("temperature*")):
        one, other = (read_metrics(path) for path in (folder, tmp_path / "each" / folder.name))
        assert [record["step"] for record in one] == [record["step"] for record in other] == [2, 4]
        for mine, theirs in zip(one, other, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        (found,), (alone,) = (evaluations(path) for path in (folder, tmp_path / "each" / folder.name))
        assert found.keys() == alone.keys()
        assert abs(found["accuracy"] - alone["accuracy"]) < 100 / 12 + 1e-6
    assert main([*command, "--run-dir", str(tmp_path / "all")]) == 0
    assert "==" not in capsys.readouterr().out  # nothing is done twice


def results(accuracies):
    return [
        {
            "protocol": "knn",
            "encoder": "trained",
            "accuracy": value,
            "knobs": {"t": t, "bits": "5", "seed": str(seed)},
        }
        for t, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_tables_show_intervals_and_differences_by_seed():
    found = results({"0.1": [50.0, 60.0, 70.0], "0.5": [51.0, 61.5, 70.5]})
    header, rows = sweep_table(found)
    assert header == ("t", "encoder", "knn")
    assert rows[0] == ("0.1", "trained", "60.0 ± 24.8 (n=3)")
    header, rows = differences_table(found)
    assert header == ("t", "minus", "knn")
    assert rows == [("0.5", "0.1", "+1.0 ± 1.2, p 0.074 (n=3)")]
    assert fewest_seeds(found) == 3
    assert differences_table(results({"0.1": [1.0, 2.0]}))[1] == []
    # What was the same in all runs, though it was given, is no column.
    assert sweep_table(results({"0.1": [1.0, 3.0]}))[0] == ("encoder", "knn")


def test_of_many_settings_each_stands_against_the_first():
    found = results({str(t): [50.0 + t, 60.0 + 2 * t] for t in range(6)})
    rows = differences_table(found)[1]
    assert [row[:2] for row in rows] == [(str(t), "0") for t in range(1, 6)]


def test_a_range_of_whole_numbers_is_one_word():
    assert values_of("0..4") == ["0", "1", "2", "3", "4"]
    assert values_of("../runs/a") == ["../runs/a"]
    assert values_of("3..3") == ["3"]
    with pytest.raises(ValueError, match=r"got 4\.\.0\. Write 0\.\.4"):
        values_of("4..0")


def test_what_cannot_be_evaluated_is_told_before_anything_is_trained(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxcl.sweep.train_run", lambda *given: pytest.fail("a run was trained"))
    command = ["sweep", str(config), "--run-dir", str(tmp_path), "--seed", "0"]
    assert main([*command, "--protocol", "knn", "knnn"]) == 1
    assert "There is no protocol knnn; there are knn, " in capsys.readouterr().err
    with pytest.raises(ValueError, match="There is no baseline pixels"):
        sweep(config, dict, {"seed": ["0"]}, tmp_path, baselines=["pixels"])


def test_of_several_grids_a_result_has_nothing_for_a_knob_that_only_others_name(tmp_path):
    grid = [{"loss": ["a"], "temperature": ["0.1", "0.2"]}, {"loss": ["b"]}, {"loss": ["b"]}]
    runs = combinations(grid)
    assert len(runs) == 3  # none is done twice
    folders = [tmp_path / name_of(run) for run in runs]
    for folder in folders:
        (folder / "evaluations").mkdir(parents=True)
        row = {"protocol": "knn", "encoder": folder.name, "accuracy": 50.0}
        (folder / "evaluations" / "knn.json").write_text(json.dumps([row]))
    found = write_results(tmp_path, runs, folders)
    assert [row["knobs"] for row in found] == [
        {"loss": "a", "temperature": "0.1"},
        {"loss": "a", "temperature": "0.2"},
        {"loss": "b", "temperature": ""},
    ]


# --- a run that was stopped, or asked something else ---


def stopped_at_half(folder):
    """The same run after two of its four steps, and its evaluation there."""
    shutil.rmtree(folder / "evaluations")
    (folder / FILE).unlink()
    shutil.rmtree(folder / "checkpoints" / "4")
    (row,) = evaluate_run(folder, protocols=["knn"], baselines=())
    assert row["step"] == 2


def asked_otherwise_by_an_older_jaxcl(folder):
    """Whose results of another split had no name of their own, and were marked."""
    (row,) = evaluate_run(folder, protocols=["knn"], baselines=(), evaluate_on="train")
    del row["variant"]
    (folder / "evaluations" / "knn.json").write_text(json.dumps([row]))


OTHERWISE = {
    "at an earlier checkpoint": stopped_at_half,
    "on the training split": lambda folder: evaluate_run(folder, protocols=["knn"], evaluate_on="train"),
    "with another setting": lambda folder: evaluate_run(folder, protocols=["knn"], settings={"k": 1}),
    "on another split, by an older jaxcl": asked_otherwise_by_an_older_jaxcl,
}


@pytest.fixture(scope="module")
def fresh(config, tmp_path_factory):
    """(the command of a sweep, its directory, what it found), of one run that nobody touched."""
    command = ["sweep", str(config), "--protocol", "knn", "--seed", "0", "--save-every", "2", "--run-dir"]
    folder = tmp_path_factory.mktemp("fresh")
    assert main([*command, str(folder)]) == 0
    return command, folder, rows_of(folder)


def rows_of(folder):
    rows = json.loads((folder / "sweep.json").read_text())
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "embed_seconds")}
        for row in rows
    ]


@pytest.mark.parametrize("evaluated_so", OTHERWISE)
@pytest.mark.parametrize("alone", [False, True], ids=["beside its results", "and nothing else"])
def test_a_sweep_takes_no_result_that_answers_another_question(fresh, tmp_path, evaluated_so, alone):
    command, there, found = fresh
    shutil.copytree(there, tmp_path / "again")
    (folder,) = (tmp_path / "again").glob("seed=0*")
    if alone:
        shutil.rmtree(folder / "evaluations")
        (folder / FILE).unlink()
        (folder / "evaluations").mkdir()
        (folder / FILE).write_text("{}")
    OTHERWISE[evaluated_so](folder)
    assert main([*command, str(tmp_path / "again")]) == 0
    assert rows_of(tmp_path / "again") == found
    assert [row["step"] for row in found] == [4]


def test_results_of_another_question_have_a_name_and_a_column_of_their_own(fresh, tmp_path):
    _, there, (found,) = fresh
    shutil.copytree(there, tmp_path / "again")
    (folder,) = (tmp_path / "again").glob("seed=0*")
    usual = (folder / "evaluations/knn.json").read_bytes()
    how = {"baselines": (), "settings": {"k": 1}}
    (row,) = evaluate_run(folder, protocols=["knn"], evaluate_on="train", **how)
    assert (row["variant"], row["evaluated_on"]) == ("evaluate_on=train, k=1", "train")
    assert row["accuracy"] == 100  # each finds itself
    assert {file.name for file in (folder / "evaluations").iterdir()} == {
        "knn.json",
        "knn@evaluate_on_train_k_1.json",
    }
    assert (folder / "evaluations/knn.json").read_bytes() == usual
    assert evaluated(folder) == {("knn", folder.name)}
    shown = accuracy_table([*evaluations(folder)])
    assert shown[0] == ("encoder", "knn", "knn, evaluate_on=train, k=1")
    # What is said and is the usual all the same is no other question.
    (row,) = evaluate_run(folder, protocols=["knn"], baselines=(), evaluate_on="test", settings={"k": 10.0})
    assert {"variant", "evaluated_on"}.isdisjoint(row)
    assert row["accuracy"] == found["accuracy"]


def test_a_sweep_shows_no_result_of_before_a_run_s_last_step(fresh, config, tmp_path):
    _, there, found = fresh
    (folder,) = there.glob("seed=0*")
    assert last_step(folder, load_config(config)) == 4
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    stopped_at_half(copy)
    runs = [{"seed": "0", "save_every": "2"}]
    assert len(write_results(tmp_path, runs, [copy])) == 1
    assert write_results(tmp_path, runs, [copy], config=load_config(config)) == []


# --- runs that are there already: made by hand, nothing is trained ---


def made(folder, config, knobs, *, protocols=("knn",)):
    """A run directory as `train_run` and `evaluate_run` leave it, for what a sweep reads."""
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    (folder / "config.py").write_text(config.read_text())
    (folder / "knobs.json").write_text(knobs_to_json(resolved(knobs)))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    for protocol in protocols:
        row = {"protocol": protocol, "encoder": folder.name, "accuracy": 50.0}
        (folder / "evaluations" / f"{protocol}.json").write_text(json.dumps([row]))


@pytest.fixture
def faked(config, tmp_path, monkeypatch):
    """(a sweep whose runs are made by hand, the names of those that were trained)."""
    trained, module = [], load_config(config)

    def knobs_of(combination):
        numbers = {name: float(value) if "." in value else int(value) for name, value in combination.items()}
        return module.Knobs(**numbers)

    def train(config, knobs, folder):
        trained.append(folder.name)
        made(folder, config, knobs, protocols=())

    def evaluate(folders, protocols, **_):
        for folder in folders:
            made(folder, config, module.Knobs(**json.loads((folder / "knobs.json").read_text())))

    monkeypatch.setattr("jaxcl.sweep.train_run", train)
    monkeypatch.setattr("jaxcl.sweep.evaluate_runs", evaluate)

    def run(grid, config=config, **more):
        return sweep(config, knobs_of, grid, tmp_path, **{"protocols": ("knn",), "together": 1, **more})

    return run, trained


def test_what_is_done_by_another_program_or_other_knobs_is_told_and_not_mixed_in(faked, config, tmp_path):
    run, trained = faked
    grid = {"temperature": ["0.1"], "seed": ["0"]}
    assert len(run(grid)) == len(run(grid)) == len(trained) == 1
    edited = tmp_path / "edited.py"
    edited.write_text(config.read_text() + "\n# Comments are no other program.\n")
    assert len(run(grid, edited)) == 1
    edited.write_text(config.read_text() + "\nOTHER = 1\n")
    with pytest.raises(
        ValueError, match=r"temperature=0.1,seed=0 holds a run of another version .*--run-dir"
    ):
        run(grid, edited)
    file = tmp_path / "temperature=0.1,seed=0" / "knobs.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"epochs": 5, "keep_every": 7}))
    with pytest.raises(ValueError, match="other knobs:\n  --epochs: the run has 5, you ask for 2\n"):
        run(grid)
    assert len(trained) == 1


def test_a_run_is_found_by_its_knobs_whatever_its_name(faked, tmp_path, capsys):
    run, trained = faked
    assert len(run({"temperature": ["0.1"], "width": ["4"]})) == 1
    assert len(run({"width": ["4"], "temperature": ["0.10"], "seed": ["0", "1"]})) == 2
    assert trained == ["temperature=0.1,width=4", "width=4,temperature=0.10,seed=1"]
    assert (
        "seed=0 has the same knobs as temperature=0.1,width=4, so it is the same run."
        in capsys.readouterr().out
    )
    # Two words for one number are one run, in two rows.
    assert len(run({"temperature": ["0.3", "0.30"]})) == 2
    assert trained[2:] == ["temperature=0.3"]


def test_an_evaluation_that_was_stopped_is_not_done_and_one_without_a_mark_is_by_its_files(
    faked, config, tmp_path
):
    run, trained = faked
    run({"seed": ["0"]})
    folder, mine = tmp_path / "seed=0", ("knn", "seed=0")
    assert not (folder / FILE).exists()
    assert evaluated(folder) == {mine}
    mark_begun(folder, ["knn"])
    assert evaluated(folder) == set()
    run({"seed": ["0"]})
    assert trained == ["seed=0"] * 2
    mark_complete(folder, ["knn"], ["seed=0", "untrained encoder"])
    assert evaluated(folder) == {mine}  # of the baseline there is no row
    run({"seed": ["0"]})
    assert trained == ["seed=0"] * 2
    (folder / FILE).write_text("{")
    assert evaluated(folder) == set()
    mark_begun(folder, ["knn"])
    (folder / "evaluations" / ".knn.json").write_text("[{")  # half written
    assert len(evaluations(folder)) == 1


def test_a_run_that_cannot_be_evaluated_ends_no_sweep_and_is_named_at_its_end(faked, monkeypatch, capsys):
    run, trained = faked
    from jaxcl import sweep as module

    good = module.evaluate_runs

    def evaluate(folders, protocols, **more):
        if folders[0].name == "seed=0":
            raise Unevaluated(f"{folders[0]}: knn: too few images.", [])
        good(folders, protocols=protocols, **more)

    monkeypatch.setattr("jaxcl.sweep.evaluate_runs", evaluate)
    with pytest.raises(Unevaluated, match="seed=0: knn: too few images") as told:
        run({"seed": ["0", "1"]})
    assert trained == ["seed=0", "seed=1"]
    assert [row["knobs"] for row in told.value.results] == [{"seed": "1"}]
    assert "goes on with the others" in capsys.readouterr().err


def test_one_of_several_runs_that_cannot_be_evaluated_leaves_the_others_theirs(monkeypatch, tmp_path):
    def evaluate(folder, *given, **more):
        if folder.name == "a":
            raise Unevaluated("knn: too few images.", [])
        return [{"encoder": folder.name}]

    monkeypatch.setattr(evaluation, "evaluate_run", evaluate)
    with pytest.raises(Unevaluated, match="a: knn: too few images") as told:
        evaluation.evaluate_runs([tmp_path / "a", tmp_path / "b"], members=evaluation.Members())
    assert told.value.results == [{"encoder": "b"}]


BOTH = ("--baselines", "raw", "untrained")


@pytest.fixture
def kinds(config, tmp_path):
    """A sweep of two trained seeds whose images have two kinds of labels; those of "digit" are what `labels` makes."""

    def run(labels, *words):
        text = config.read_text()
        whole = 'return Images("noise", pixels.astype(np.uint8), labels, ("a", "b"))'
        assert whole in text
        photo = whole.removeprefix("return ")
        many = f'{{"photo": {photo}, "digit": {photo}._replace(labels={labels})}}'
        text = text.replace(whole, f"return {many}")
        last = text[text.index('    return Data("noise"') :].partition("\n")[0]
        size = "lambda split: made(16, 0) if split == 'train' else made(12, 1)"
        text = text.replace(last, f'    made = split\n    return Data.of_kinds("noise", {size})')
        path = tmp_path / "kinds.py"
        path.write_text(text)
        return main(["sweep", str(path), "--seed", "0..1", "--run-dir", str(tmp_path / "all"), *words])

    return run


@pytest.mark.parametrize("together", ["1", "2"])
def test_a_kind_of_label_that_is_one_class_is_left_out_and_the_other_has_all_its_rows(
    kinds, tmp_path, together
):
    with pytest.warns(UserWarning, match="The labels 'digit' are not evaluated: all .* the same class"):
        assert kinds("0 * labels", "--protocol", "knn", "fewshot5", "--together", together, *BOTH) == 0
    for seed in ("seed=0", "seed=1"):
        rows = evaluations(tmp_path / "all" / seed)
        encoders = [*evaluation.BASELINES, seed]
        both = [(protocol, encoder) for protocol in ("knn", "fewshot5") for encoder in encoders]
        assert sorted((row["protocol"], row["encoder"]) for row in rows) == sorted(both)
        assert {row["labels"] for row in rows} == {"photo"}
        assert evaluated(tmp_path / "all" / seed) == {(row["protocol"], row["encoder"]) for row in rows}


def test_a_protocol_that_fails_on_one_kind_of_label_is_run_on_the_others(kinds, tmp_path, capsys):
    # Negative labels are unlabelled images, which kNN refuses.
    assert kinds("labels - 1", "--protocol", "knn", *BOTH) == 1
    assert "knn, digit: " in capsys.readouterr().err
    for seed in ("seed=0", "seed=1"):
        rows = evaluations(tmp_path / "all" / seed)
        assert [(row["encoder"], row["labels"]) for row in rows] == [
            (encoder, "photo") for encoder in (*evaluation.BASELINES, seed)
        ]
        assert not evaluated(tmp_path / "all" / seed)  # asked again, the protocol is run again


@pytest.mark.parametrize("found", ["plan", "xla"])
def test_of_runs_that_are_too_many_for_the_memory_half_are_tried(faked, monkeypatch, found):
    run, trained = faked
    tried = []

    def train(config, knobs, folders, *, numbers):
        tried.append(len(folders))
        if len(folders) > 2:
            if found == "xla":
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
            raise DoesNotFit("A step needs 9 GiB. --anyway trains all the same.")
        for own, folder in zip(knobs, folders, strict=True):
            made(folder, config, own, protocols=())

    monkeypatch.setattr("jaxcl.sweep.train_runs", train)
    assert len(run({"seed": ["0", "1", "2", "3"]}, together=4)) == 4
    assert tried == [4, 2, 2]

    def fail(*given, **more):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr("jaxcl.sweep.train_runs", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run({"seed": ["5", "6"]}, together=2)


def test_a_sweep_over_places_of_data_has_a_run_for_each(tmp_path):
    """They may hold other images."""
    config = Path(__file__).parents[1] / "configs/quickstart.py"
    all_of = combinations({"data_dir": ["/a", "/b"]})
    knobs = [load_config(config).Knobs(data_dir=one["data_dir"]) for one in all_of]
    assert [folder.name for folder in folders_of(tmp_path, config, all_of, knobs)] == [
        "data_dir=_a",
        "data_dir=_b",
    ]


def test_a_run_that_goes_on_with_data_elsewhere_is_evaluated_from_there(tmp_path):
    config = Path(__file__).parents[1] / "configs/quickstart.py"
    about = About(2000, (24, 24, 3), ("a", "b"))
    for where in ("/old", "/new"):
        create_or_resume(tmp_path / "run", config, load_config(config).Knobs(data_dir=where), about)
    assert open_run(tmp_path / "run").knobs.data_dir == "/new"


def test_a_sweep_s_remedies_are_words_that_it_takes(faked, config, tmp_path, monkeypatch, capsys):
    assert grid_of(["--seed", "0", "--nonfinite", "skip", "--keep-every=5"]) == (
        {"seed": ["0"]},
        ["--nonfinite", "skip", "--keep-every", "5"],
    )
    # Though a run may change it: the folders of sweeps are called by it.
    assert grid_of(["--data-dir", "/d", "--seed", "0"]) == ({"data_dir": ["/d"], "seed": ["0"]}, [])
    with pytest.raises(ValueError, match="--nonfinite is the same for all runs of a sweep: one value"):
        grid_of(["--nonfinite", "stop", "skip"])
    run, trained = faked
    from jaxcl import sweep as module

    good = module.train_run

    def diverges(config, knobs, folder):
        good(config, knobs, folder)
        raise FloatingPointError("Training step 3 was not taken.")

    monkeypatch.setattr("jaxcl.sweep.train_run", diverges)
    assert run({"seed": ["0"]}) == []
    said = capsys.readouterr().err
    file = tmp_path / "seed=0" / "diverged.json"
    assert f"--nonfinite skip, which leaves out steps that are not finite, remove {file}" in said
    monkeypatch.setattr("jaxcl.sweep.train_run", good)
    assert run({"seed": ["0"]}) == []
    file.unlink()
    assert len(run({"seed": ["0"]})) == 1
    assert trained == ["seed=0"] * 2

    def too_large(*given):
        raise DoesNotFit("A step needs 9 GiB. --anyway trains all the same.")

    monkeypatch.setattr("jaxcl.sweep.train_run", too_large)
    with pytest.raises(DoesNotFit, match="^seed=1: A step needs 9 GiB. Give all runs a smaller --batch-size"):
        run({"seed": ["1"]})


def test_a_study_goes_on_with_another_choice_for_steps_that_are_not_finite(config, tmp_path):
    module, study = load_config(config), Study(str(config), {"width": [4]}, (0,))
    record = _record(tmp_path, config, study, module.Knobs(), small=False)
    (tmp_path / "study.json").write_text(json.dumps(record))
    asked = module.Knobs(nonfinite="skip", keep_every=5)
    assert _record(tmp_path, config, study, asked, small=False) == record
    with pytest.raises(ValueError, match="--epochs"):
        _record(tmp_path, config, study, module.Knobs(epochs=9), small=False)


ENCODED = """
from dataclasses import dataclass

import optax

from jaxcl import CommonKnobs, Recipe, augment, basics, losses, methods, nets


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    epochs: float = 1
    input: str = "device"


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.crop_and_flip(size))
    loss = losses.keyless(losses.nt_xent, temperature=0.2)
    encoder = nets.conv_n(features=(4,), dense=4, norm=norm)
    head = nets.mlp_head(norm=norm, hidden=(), out=8)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    return Recipe(method, optax.sgd(0.1), optax.constant_schedule(0.1), views, steps, knobs.batch_size)
"""


def test_a_sweep_of_images_that_stay_encoded(tmp_path, capsys):
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    (tmp_path / "photos.py").write_text(ENCODED)
    for k in range(24):
        file = tmp_path / "photos" / ("test" if k % 3 == 0 else "train") / "ab"[k % 2] / f"{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (24, 20, 3), np.uint8)).save(file)
    words = ["--data", f"folder:{tmp_path}/photos", "--encoded", "True", "--size", "16", "--seed", "0", "1"]
    command = ["sweep", str(tmp_path / "photos.py"), "--run-dir", str(tmp_path / "out"), *words]
    assert main([*command, "--protocol", "knn"]) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "out/sweep.json").read_text())
    assert sorted(row["knobs"]["seed"] for row in rows if row["protocol"] == "knn") == ["0", "1"]
