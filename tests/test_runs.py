"""From the command line to a report, on a few digits."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxcl import augment, keys
from jaxcl.cli import knobs_of, main, words_of
from jaxcl.data import crops_of, crops_whole_images
from jaxcl.encoder import load_encoder
from jaxcl.replay import replay
from jaxcl.report import picture_of_views
from jaxcl.runs import evaluate_run, open_run
from jaxcl.runs.images import other_split
from jaxcl.sweep import name_of
from jaxcl.train.log import read_metrics
from jaxcl.typing import About

CONFIG = '''
"""A run of seconds."""

from dataclasses import dataclass

import optax

from jaxcl import augment, nets
from jaxcl.config import CommonKnobs, Recipe, steps_of
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "npz:grays.npz"
    epochs: float = 1
    batch_size: int = 16
    log_every: int = 2
    temperature: float = 0.5
    """NT-Xent's temperature."""
    features: tuple[int, ...] = (8,)
    """Channels of the encoder's convolutions."""


def recipe(knobs, about):
    norm = nets.batch_norm()
    views = augment.two_views(augment.crop_and_flip(16))
    return Recipe(
        method=simclr(
            views=views,
            encoder=nets.conv_n(features=knobs.features, dense=16, norm=norm),
            head=nets.mlp_head(norm=norm, hidden=(), out=8),
            loss=keyless(nt_xent, temperature=knobs.temperature),
        ),
        optimizer=optax.adam(1e-3),
        learning_rate=optax.constant_schedule(1e-3),
        views=views,
        batch_size=knobs.batch_size,
        steps=steps_of(knobs.epochs, about.count, knobs.batch_size),
    )
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a config, its images (two grays), and its finished run."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = (rng.integers(0, 100, (64, 16, 16, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(folder / "grays.npz", classes=["dark", "light"], **arrays)
    (folder / "grays.py").write_text(CONFIG)
    with contextlib.chdir(folder):
        assert main(["train", "grays.py", "--run-dir", str(folder / "run"), "--knn-every", "0.5"]) == 0
    return folder


@pytest.fixture(autouse=True)
def at_home(request, monkeypatch):
    """Most commands are given where the images are. Pictures have few pixels."""
    monkeypatch.setattr("jaxcl.report.run.DPI", 20)
    if "world" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("world"))


@pytest.fixture
def without_images(world, tmp_path, monkeypatch):
    """The run, seen from another directory, after its images have gone."""
    (world / "grays.npz").rename(world / "gone.npz")
    monkeypatch.chdir(tmp_path)
    yield world / "run"
    (world / "gone.npz").rename(world / "grays.npz")


def test_a_run_directory_records_what_was_run(world):
    run = world / "run"
    knobs = json.loads((run / "knobs.json").read_text())
    assert knobs["features"] == [8]
    assert knobs["data"] == f"npz:{world}/grays.npz"
    assert knobs["seed"] == 0
    assert (run / "config.py").read_text() == CONFIG
    record = json.loads((run / "run.json").read_text())
    assert record["about"] == {"count": 64, "shape": [16, 16, 3], "classes": ["dark", "light"]}
    assert {"jax", "flax", "python"} <= set(record["versions"])
    assert "cpu" in record["device"].lower()
    assert (run / "metrics.jsonl").exists()
    assert list(run.rglob("events.out.tfevents*"))
    assert list((run / "checkpoints").iterdir())


def test_online_knn_is_computed_as_often_as_asked(world):
    found = {r["step"]: r["knn_accuracy"] for r in read_metrics(world / "run") if "knn_accuracy" in r}
    assert list(found) == [2, 4]
    assert all(0 <= accuracy <= 100 for accuracy in found.values())


def test_an_encoder_opens_without_its_images_and_from_elsewhere(world, without_images):
    with np.load(world / "gone.npz") as stored:
        images = stored["test_images"][:4]
    encoder, before = load_encoder(without_images), load_encoder(without_images, untrained=True)
    assert (encoder.step, before.step) == (4, 0)
    assert encoder.about == About(64, (16, 16, 3), ("dark", "light"))
    features = encoder(images)
    chex.assert_shape(features, (4, 16))
    np.testing.assert_allclose(features, encoder(images.astype(np.float32) / 255), rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(features) - before(images)).max() > 1e-4
    with pytest.raises(ValueError, match="names no part 'head'"):
        load_encoder(without_images, part="head")
    with pytest.raises(ValueError, match=r"takes images \[b, h, w, c\]; got \(16, 16, 3\)"):
        encoder(images[0])


def test_an_evaluation_without_images_says_so_and_takes_others(world, without_images, capsys):
    command = ["evaluate", str(without_images), "--protocol", "knn", "--no-baselines"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "cannot be read" in error
    assert "--data" in error
    assert main([*command, "--data", f"npz:{world}/gone.npz"]) == 0
    (file,) = (without_images / "evaluations").glob("knn@*.json")
    file.unlink()  # other tests read the folder


def test_a_report_without_images_draws_the_rest_and_says_what_it_leaves_out(world, without_images, capsys):
    assert main(["plot", str(without_images)]) == 0
    assert "Views, map and nearest neighbors are left out" in capsys.readouterr().out
    page = (without_images / "plots/report.html").read_text()
    assert "left out" in page
    assert page.count("<img") == 1
    assert main(["plot", str(without_images), "--data", f"npz:{world}/gone.npz"]) == 0
    assert "left out" not in capsys.readouterr().out
    page = (without_images / "plots/report.html").read_text()
    assert "Local features: each position" in page
    assert page.count("data:image/png;base64") >= 5


def test_classifiers_are_asked_about_other_images_of_some_of_the_same_classes(world, tmp_path):
    """Ten light images, whose file calls them 0, are of the training images' class 1."""
    light = np.full((10, 16, 16, 3), 180, np.uint8)
    arrays = {f"{split}_images": light for split in ("train", "test")}
    arrays |= {f"{split}_labels": np.zeros(10, int) for split in ("train", "test")}
    np.savez(tmp_path / "other.npz", classes=["light"], **arrays)
    spec = f"npz:{tmp_path}/other.npz"
    (row,) = evaluate_run(world / "run", protocols=("linear",), baselines=(), test_data=spec)
    assert (row["train_images"], row["test_images"], row["accuracy"]) == (64, 10, 100.0)
    assert row["data"] == f"tested on {spec}"
    assert row["by_class"] == {"light": 100.0}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match="npz.* are numbers: store their names, as `classes` in the archive"):
        evaluate_run(world / "run", protocols=("linear",), baselines=(), test_data=spec)
    np.savez(tmp_path / "other.npz", classes=["green"], **arrays)
    with pytest.raises(ValueError, match="have 1 classes that the training images .* not have: green"):
        evaluate_run(world / "run", protocols=("linear",), baselines=(), test_data=spec)


def test_other_data_that_stays_encoded_is_cropped_whole(world, tmp_path):
    """Of wide images whose margins are white, crops see the margins; those that are squares already do not."""
    for name in ("train/a", "train/b", "test/a", "test/b"):
        pixels = np.full((20, 60, 3), 255, np.uint8)
        pixels[:, 14:46] = 0
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    run, spec = open_run(world / "run"), f"folder:{tmp_path}"
    views = augment.probe_views(16)
    encoded, squares = (other_split(run, spec, "train", None, encoded=which) for which in (True, False))
    assert crops_whole_images(encoded.images, views)
    assert not crops_whole_images(squares.images, views)
    batches = crops_of(jax.random.key(0), encoded.images, views, lambda step: np.arange(2), steps=5)
    assert max(float(np.max(batch["views"])) for batch in batches) > 0.9
    assert squares.images.max() == 0
    assert encoded.classes == squares.classes == ("a", "b")


def test_other_images_than_the_run_began_with_are_refused(world, tmp_path, capsys):
    shutil.copytree(world / "run", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["about"]["count"] = 63
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    assert main(["train", "grays.py", "--run-dir", str(tmp_path / "run"), "--knn-every", "0.5"]) == 1
    assert "began with 63 images of 16 x 16 x 3, 2 classes; now there are 64" in capsys.readouterr().err


def test_a_run_may_start_from_the_encoder_of_another(world, tmp_path, capsys):
    command = ["train", "grays.py", "--init", "run", "--epochs", "0.25"]
    assert main([*command, "--run-dir", str(tmp_path / "next")]) == 0
    assert json.loads((tmp_path / "next/knobs.json").read_text())["init"] == f"{world}/run"
    assert f"Starts from the encoder of {world}/run.\n" in capsys.readouterr().out
    kernels = [
        jax.tree.leaves(load_encoder(run).params["encoder"]) for run in (world / "run", tmp_path / "next")
    ]
    # One step of Adam moves an entry by its rate at most.
    assert all(np.abs(np.asarray(a) - b).max() < 1.1e-3 for a, b in zip(*kernels, strict=True))


@pytest.mark.parametrize("init", ["run", "weights.safetensors"])
def test_untrained_is_how_a_run_that_was_started_from_another_began(world, tmp_path, init, capsys):
    """With the other's encoder, of a file with its statistics too, while these are there."""
    of_file = init != "run"
    if of_file:
        init = tmp_path / init
        assert main(["export", "run", "--to", "safetensors", "--out", str(init)]) == 0
    else:
        init = shutil.copytree(world / "run", tmp_path / "other")
    words = [
        "train",
        "grays.py",
        "--init",
        str(init),
        "--epochs",
        "0.25",
        "--run-dir",
        str(tmp_path / "next"),
    ]
    assert main(words) == 0
    assert "Starts from" in capsys.readouterr().out
    with np.load(world / "grays.npz") as stored:
        images = stored["test_images"][:4]
    other, began = load_encoder(world / "run"), load_encoder(tmp_path / "next", untrained=True)
    assert began.step == 0
    chex.assert_trees_all_equal(began.params["encoder"], other.params["encoder"])
    if of_file:
        np.testing.assert_allclose(began(images), other(images), rtol=1e-6)
    assert np.abs(began(images) - load_encoder(world / "run", untrained=True)(images)).max() > 1e-4
    assert "Starts from" not in capsys.readouterr().out
    logged = [one["loss"] for one in read_metrics(tmp_path / "next") if "loss" in one]
    assert replay(tmp_path / "next", step=1).loss == pytest.approx(logged[0], rel=1e-5)
    (moved := tmp_path / f"gone{init.suffix}").unlink(missing_ok=True)
    init.rename(moved)
    if not of_file:  # its place is taken by what does not fit
        shutil.copytree(moved, init)
        for file in init.glob("checkpoints/*/manifest.json"):
            file.write_text("{}")
        with pytest.raises(FileNotFoundError, match="which is missing or has changed"):
            load_encoder(tmp_path / "next", untrained=True)
        shutil.rmtree(init)
    with pytest.raises(FileNotFoundError, match="which is missing or has changed"):
        load_encoder(tmp_path / "next", untrained=True)
    rows = evaluate_run(tmp_path / "next", protocols=("knn",), say=(said := []).append)
    assert [row["encoder"] for row in rows] == ["raw pixels", "next"]
    assert any(line.startswith("Without the untrained encoder: ") for line in said)


def test_evaluate_compares_with_both_baselines_and_writes_its_settings(world, capsys):
    assert main(["evaluate", str(world / "run"), "--protocol", "knn", "linear"]) == 0
    rows = json.loads((world / "run/evaluations/knn.json").read_text())
    assert [row["encoder"] for row in rows] == ["raw pixels", "untrained encoder", "run"]
    assert all(0 <= row["accuracy"] <= 100 and row["settings"] for row in rows)
    out = capsys.readouterr().out
    assert "raw pixels" in out
    assert "linear" in out


def test_evaluate_embeds_once_per_encoder_however_many_protocols(world, monkeypatch):
    from jaxcl.evaluate import subject

    embedded, embed = [], subject.embed
    monkeypatch.setattr(subject, "embed", lambda *args, **more: embedded.append(args) or embed(*args, **more))
    rows = evaluate_run(world / "run", protocols=("knn", "linear"))
    encoders = ["raw pixels", "untrained encoder", "run"]
    assert [row["encoder"] for row in rows] == encoders * 2
    assert [row["protocol"] for row in rows] == ["knn"] * 3 + ["linear"] * 3
    assert len(embedded) == 2 * len(encoders)  # training and test images


@pytest.mark.slow
def test_a_sweep_takes_one_baseline_or_both(world, tmp_path, capsys):
    command = ["sweep", str(world / "grays.py"), "--protocol", "knn"]
    for words, beside in ((["untrained"], ["untrained encoder"]), ([], ["raw pixels", "untrained encoder"])):
        run_dir = tmp_path / f"sweep{len(words)}"
        options = ["--run-dir", str(run_dir), "--baselines", *words, "--epochs", "0.5"]
        assert main([*command, *options]) == 0
        rows = json.loads((run_dir / "sweep.json").read_text())
        assert [row["encoder"] for row in rows] == [*beside, "trained"]
    with pytest.raises(ValueError, match="no baseline raw; there are raw pixels, untrained encoder"):
        evaluate_run(run_dir / "epochs=0.5", baselines=["raw"])


def test_evaluate_takes_other_data_and_settings_and_says_so(world, tmp_path, capsys):
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    gray = (rng.integers(0, 100, (40, 8, 8)) + 100 * labels[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "gray.npz", images=gray, labels=labels)
    command = ["evaluate", str(world / "run"), "--protocol", "fewshot5", "--no-baselines"]
    assert main([*command, "--data", f"npz:{tmp_path}/gray.npz", "--set", "draws=3", "steps=20"]) == 0
    out = capsys.readouterr().out
    assert "fewshot5, run" in out  # what stands in for the bar
    assert "±" in out
    (file,) = (world / "run/evaluations").glob("fewshot5@*.json")
    (row,) = json.loads(file.read_text())
    assert row["settings"]["draws"] == len(row["accuracies"]) == 3
    assert row["data"].endswith("gray.npz")
    file.unlink()  # other tests read the folder
    assert main([*command, "--set", "epochs=3"]) == 1
    error = capsys.readouterr().err
    assert "fewshot5 has no setting epochs; it has shots, draws, steps, learning_rate" in error
    assert main([*command, "--set", "draws=three"]) == 1
    assert "fewshot5's setting draws is a whole number, as 10; got 'three'" in capsys.readouterr().err
    assert main([*command, "--set", "standardize=0"]) == 1
    assert "standardize is a truth value, as true; got 0" in capsys.readouterr().err
    assert main([*command, "--set", "draws"]) == 1
    assert "--set takes NAME=VALUE" in capsys.readouterr().err


def test_plot_leaves_a_report_with_pictures(world):
    assert main(["plot", str(world / "run")]) == 0
    assert (world / "run/plots/report.html").read_text().count("data:image/png;base64") >= 5


def test_a_changed_knob_in_a_resumed_run_is_named(world, capsys):
    command = ["train", "grays.py", "--run-dir", "run", "--knn-every", "0.5", "--temperature", "0.1"]
    assert main(command) == 1
    message = capsys.readouterr().err
    assert "--temperature: the run has 0.5, you ask for 0.1" in message
    assert "another --run-dir" in message


def test_a_changed_program_is_refused_and_changed_comments_are_not(world, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)
    config = tmp_path / "grays.py"
    config.write_text(CONFIG.replace("optax.adam(1e-3)", "optax.adam(2e-3)"))
    command = ["train", str(config), "--run-dir", str(run), "--knn-every", "0.5"]
    assert main(command) == 1
    assert "another version" in capsys.readouterr().err
    config.write_text("# a remark\n" + CONFIG)
    assert main(command) == 0


def test_a_misspelt_knob_suggests_the_right_one(world, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(world / "grays.py"), "--temperatur", "0.1"])
    assert stopped.value.code == 2
    assert "--temperature" in capsys.readouterr().err


def test_help_of_a_config_lists_its_knobs(world, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(world / "grays.py"), "--help"])
    assert stopped.value.code == 0
    assert "NT-Xent's temperature." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.py"], "There is no config nowhere.py"),
        (["evaluate", "nowhere"], "not a run directory"),
        (["plot", "nowhere"], "not a run directory"),
        (["evaluate", "RUN", "--protocol", "psychic"], "psychic"),
    ],
)
def test_mistakes_are_answered_with_a_sentence(world, capsys, arguments, message):
    assert main([str(world / "run") if word == "RUN" else word for word in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_help_teaches_and_an_unknown_command_is_answered(capsys):
    assert main(["--help"]) == 0
    assert "jaxcl train configs/quickstart.py" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert "jaxcl knows the commands train" in capsys.readouterr().out


def test_the_module_runs_as_a_command():
    out = subprocess.run(
        [sys.executable, "-m", "jaxcl", "--version"], capture_output=True, text=True, check=True
    )
    assert out.stdout.startswith("jaxcl ")


def test_a_word_of_a_sweep_may_be_a_tuple(world):
    words = words_of("grays.py", {"features": "4,8", "epochs": "0.5"})
    assert knobs_of("sweep", "grays.py", words).features == (4, 8)
    assert name_of({"seed": "0", "features": "4,8"}) == "seed=0,features=4,8"


def test_sweep_averages_over_seeds_and_skips_what_is_done(world, capsys):
    command = ["sweep", str(world / "grays.py"), "--run-dir", str(world / "sweep"), "--protocol", "knn"]
    command += ["--seed", "0", "1"]
    assert main(command) == 0
    assert "(n=2)" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in Path(world / "sweep").rglob("metrics.jsonl")}
    assert len(made) == 2
    assert main(command) == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert len(json.loads((world / "sweep/sweep.json").read_text())) == 2
    swept = str(world / "sweep")
    assert main(["plot", swept, "--knob", "seed", "--out", str(world / "swept.png")]) == 0
    assert (world / "swept.png").stat().st_size > 1000
    assert main(["plot", swept, "--where", "protocol"]) != 0
    assert "--where takes NAME=VALUE" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_with_two_devices_train_and_evaluate_what_one_with_four_does(world, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    def start(devices, *words):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "jaxcl", *words]
        return subprocess.Popen(command, env=os.environ | flags, cwd=world, stdout=subprocess.PIPE, text=True)

    def run(devices, *words, processes=1):
        numbers = range(processes)
        distributed = [
            ["--distributed", address, str(processes), str(i)] if processes > 1 else [] for i in numbers
        ]
        started = [start(devices, *words, *more) for more in distributed]
        said = [process.communicate(timeout=300)[0] for process in started]
        assert [process.returncode for process in started] == [0] * processes
        assert said[0]
        # Only the first of several processes speaks; and Gloo, of its connections.
        assert not any(
            "Gloo" not in line and "connected" not in line for line in "".join(said[1:]).splitlines()
        )

    train = ["train", str(world / "grays.py"), "--run-dir"]
    run(2, *train, str(tmp_path / "two"), processes=2)
    run(4, *train, str(tmp_path / "one"))
    two, one = read_metrics(tmp_path / "two"), read_metrics(tmp_path / "one")
    assert [r["step"] for r in two] == [r["step"] for r in one] == [2, 4]
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-5)

    evaluate = ["evaluate", str(tmp_path / "two"), "--protocol", "knn"]
    run(2, *evaluate, processes=2)
    together = json.loads((tmp_path / "two/evaluations/knn.json").read_text())
    run(1, *evaluate)
    alone = json.loads((tmp_path / "two/evaluations/knn.json").read_text())
    assert len(alone) == 3
    for row in (*together, *alone):
        del row["seconds"], row["embed_seconds"]
    assert together == alone


def test_views_are_drawn_before_any_training_with_what_was_drawn_under_each(world, capsys):
    out = world / "pictures" / "views.png"
    assert main(["views", str(world / "grays.py"), "--out", str(out), "--images", "2", "--seed", "3"]) == 0
    assert str(out) in capsys.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_sheet_of_views_says_what_was_drawn(world):
    run = open_run(world / "run")
    figure = picture_of_views(run.recipe, run.data().train, seed=0, n=2, drawn=True)
    drawn = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(drawn) == 4
    assert all("crop" in text for text in drawn)


def test_views_are_those_of_the_first_training_step(world):
    run, seen = open_run(world / "run"), []

    def views(key, batch):
        seen.append(key)
        return (batch["image"] / 255,)

    picture_of_views(run.recipe._replace(views=views), run.data().train, seed=3, n=1)
    assert seen == [keys.views_key(keys.step_key(keys.run_key(3), 0))]


def test_views_say_what_they_need(capsys):
    assert main(["views"]) == 2
    assert main(["views", "--help"]) == 0
    assert main(["views", "nowhere.py"]) == 1
    assert "no config nowhere.py" in capsys.readouterr().err
