"""From the command line: a network learns from labels, another from it without any, and one goes on from a third."""

import json
import shutil
from pathlib import Path

import chex
import numpy as np
import pytest

from jaxcl.cli import main
from jaxcl.encoder import load_encoder
from jaxcl.runs import open_run
from jaxcl.train.log import read_metrics

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = ["--features", "4", "--batch-size", "32", "--log-every", "4", "--learning-rate", "0.01"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with images of two grays, once with labels and once without, and with a teacher that knows them."""
    folder = tmp_path_factory.mktemp("world")
    rng, labels = np.random.default_rng(0), np.arange(128) % 2
    images = (rng.integers(0, 100, (128, 16, 16, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(folder / "grays.npz", **arrays)
    np.savez(folder / "bare.npz", train_images=images, test_images=images)
    arguments = ["--data", f"npz:{folder}/grays.npz", "--epochs", "12", *SMALL]
    assert main(["train", f"{CONFIGS}/supervised.py", "--run-dir", f"{folder}/teacher", *arguments]) == 0
    return folder


def test_the_supervised_run_is_a_row_of_its_own_and_its_classifier_is_evaluated(world, capsys):
    assert read_metrics(world / "teacher")[-1]["accuracy"] > 0.9
    assert main(["evaluate", f"{world}/teacher", "--protocol", "knn", "--no-baselines", "--layers", "0"]) == 0
    (joint,) = json.loads((world / "teacher/evaluations/joint.json").read_text())
    assert joint["accuracy"] > 90
    assert joint["by_class"].keys() == {"0", "1"}
    rows = json.loads((world / "teacher/evaluations/knn.json").read_text())
    assert [row["encoder"] for row in rows] == ["teacher", "layer 0 of the head"]
    assert "0: 100.0" in capsys.readouterr().out


def test_a_student_learns_what_the_teacher_says_of_images_without_labels(world):
    arguments = ["--data", f"npz:{world}/bare.npz", "--teacher", f"{world}/teacher", "--epochs", "12", *SMALL]
    assert main(["train", f"{CONFIGS}/distill.py", "--run-dir", f"{world}/student", *arguments]) == 0
    records = read_metrics(world / "student")
    assert records[-1]["teacher_agreement"] > 0.9
    assert records[-1]["loss"] < records[0]["loss"]
    other = ["--data", f"npz:{world}/grays.npz", "--no-baselines", "--protocol", "knn"]
    assert main(["evaluate", f"{world}/student", *other, "--beside", f"{world}/teacher"]) == 0
    (file,) = (world / "student/evaluations").glob("knn@*.json")
    assert [row["encoder"] for row in json.loads(file.read_text())] == ["student", "teacher"]
    assert main(["evaluate", f"{world}/student", *other, "--beside", f"{world}/student"]) == 1


def test_what_a_student_learnt_is_opened_and_evaluated_without_its_teacher(world, tmp_path):
    """A student of a student: of either teacher the weights are gone, and with them all that is there."""
    for name in ("teacher", "student", "grandchild"):
        if name != "teacher":
            teacher = tmp_path / ("teacher" if name == "student" else "student")
            arguments = [
                "--data",
                f"npz:{world}/grays.npz",
                "--teacher",
                str(teacher),
                "--epochs",
                "1",
                *SMALL,
            ]
            assert (
                main(["train", f"{CONFIGS}/distill.py", "--run-dir", f"{tmp_path}/{name}", *arguments]) == 0
            )
        else:
            shutil.copytree(world / "teacher", tmp_path / "teacher")
    images = np.load(world / "grays.npz")["test_images"][:4]
    before = load_encoder(tmp_path / "grandchild")(images)
    (tmp_path / "teacher").rename(tmp_path / "away")
    (tmp_path / "student").rename(tmp_path / "off")
    (tmp_path / "grandchild").rename(tmp_path / "moved")
    np.testing.assert_array_equal(load_encoder(tmp_path / "moved")(images), before)
    assert not list((tmp_path / "moved/given").rglob("checkpoints"))
    assert main(["evaluate", f"{tmp_path}/moved", "--protocol", "knn"]) == 0
    rows = json.loads((tmp_path / "moved/evaluations/knn.json").read_text())
    assert [row["encoder"] for row in rows] == ["raw pixels", "untrained encoder", "moved"]
    (joint,) = json.loads((tmp_path / "moved/evaluations/joint.json").read_text())
    assert joint["accuracy"] > 40
    assert open_run(tmp_path / "moved").recipe.given == {"teacher": str(tmp_path / "student")}

    record = tmp_path / "moved/run.json"
    whole = json.loads(record.read_text())
    for given in (["teacher"], {"teacher": 3}):
        record.write_text(json.dumps({**whole, "given": given}))
        with pytest.raises(ValueError, match="run.json is damaged: 'given' should be dict"):
            load_encoder(tmp_path / "moved")
    record.write_text(json.dumps(whole))

    innermost = tmp_path / "moved/given/teacher/given/teacher/config.py"
    innermost.write_text(innermost.read_text() + "# a stranger's\n")
    with pytest.raises(
        ValueError, match=rf"teacher/config.py is a program.*jaxcl evaluate {tmp_path}/moved --trust"
    ):
        load_encoder(tmp_path / "moved")
    np.testing.assert_array_equal(load_encoder(tmp_path / "moved", trust=True)(images), before)
    np.testing.assert_array_equal(load_encoder(tmp_path / "moved")(images), before)


@pytest.mark.slow
def test_fine_tuning_begins_with_encoder_head_and_statistics_of_a_pretrained_run(world):
    data = ["--data", f"npz:{world}/grays.npz", *SMALL]
    run = f"{world}/pretrained"
    assert main(["train", f"{CONFIGS}/simclr_cifar10_cpu.py", "--run-dir", run, "--epochs", "1", *data]) == 0
    tuned = ["--run-dir", f"{world}/tuned", "--init", run, "--from-layer", "1", "--epochs", "1", *data]
    # So small a rate changes nothing that can be seen.
    tuned[-1] = "1e-8"
    assert main(["train", f"{CONFIGS}/supervised.py", *tuned]) == 0
    before, after = load_encoder(run, layer=1), load_encoder(f"{world}/tuned")
    chex.assert_trees_all_close(after.params["encoder"], before.params["encoder"], atol=1e-6)
    for name, layer in after.params["head"].items():
        chex.assert_trees_all_close(layer, before.params["head"][name], atol=1e-6)
    # Batch statistics go on moving, from where they were.
    images = np.load(world / "grays.npz")["test_images"][:4]
    both = np.ravel(before(images)), np.ravel(after(images))
    assert len(both[0]) == 4 * 512
    assert np.corrcoef(*both)[0, 1] > 0.7


def test_a_student_whose_teacher_is_gone_says_where_it_belongs(world, capsys):
    arguments = ["--data", f"npz:{world}/bare.npz", "--teacher", f"{world}/gone", *SMALL]
    assert main(["train", f"{CONFIGS}/distill.py", "--run-dir", f"{world}/orphan", *arguments]) == 1
    said = capsys.readouterr().err
    assert f"--teacher {world}/gone is not there." in said
    assert "put it back there" in said


def test_a_teacher_without_a_classifier_is_refused_with_the_way_out(world, capsys):
    (world / "nobody").mkdir()
    arguments = ["--data", f"npz:{world}/bare.npz", "--teacher", f"{world}/nobody", *SMALL]
    assert main(["train", f"{CONFIGS}/distill.py", "--run-dir", f"{world}/none", *arguments]) == 1
    assert "not a run directory" in capsys.readouterr().err
