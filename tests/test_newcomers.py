"""What people do first, and what they are told: folders of pictures, mistyped paths, missing labels, full disks."""

import errno
import json
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxcl import data, runs
from jaxcl.cli import in_a_sentence, main, progress_bar, settings_of
from jaxcl.cli.errors import warnings_in_sentences
from jaxcl.cli.shows import show
from jaxcl.config import CommonKnobs, check_knobs, resolved
from jaxcl.data import classes
from jaxcl.evaluate import few_shot
from jaxcl.runs.asked import settings_taken
from jaxcl.runs.images import other_split, without_trained_on
from jaxcl.runs.pixels import projected_pixels, projection_width
from jaxcl.typing import About, Images

CONFIG = '''
"""A run of seconds."""

from dataclasses import dataclass

from jaxcl import CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "folder:pictures"
    epochs: float = 1
    batch_size: int = 16
    knn_every: float = 1


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.flip())
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=0)
    encoder = nets.conv_n(features=(4,), dense=16, norm=norm)
    head = nets.mlp_head(norm=norm, hidden=(), out=8)
    loss = losses.keyless(losses.nt_xent, temperature=0.5)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    return Recipe(method, optim.adamw(rate, weight_decay=0.0), rate, views, steps, knobs.batch_size)
'''


def pictures(folder, n, side=16):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{folder.name}{i}.png")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a config, in which commands are given."""
    (tmp_path / "mine.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_from_pictures_to_accuracies(home, capfd):
    pictures(home / "pictures" / "cat", 25)
    pictures(home / "pictures" / "dog", 25)
    pictures(home / "pictures" / "elk", 3)
    assert main(["train", "mine.py"]) == 0
    out = capfd.readouterr().out
    assert "train: 3 classes" in out
    assert "step 1: compiled in" in out
    assert "left at this pace" in out
    assert "knn_accuracy" in out
    recorded = (home / "runs/mine/trained_on.txt").read_text().split()
    assert recorded == list(data.load("folder:pictures", "train").files)

    assert main(["train", "mine.py"]) == 0
    assert "was the last" in capfd.readouterr().out

    # One class has too few images for one protocol; the other's results are there all the same.
    assert main(["evaluate", "runs/mine", "--protocol", "fewshot5", "knn"]) == 1
    said = capfd.readouterr()
    assert "class 2 (elk) has only" in said.err
    rows = json.loads((home / "runs/mine/evaluations/knn.json").read_text())
    assert [row["encoder"] for row in rows] == ["raw pixels", "untrained encoder", "mine"]
    lines = [line for line in said.out.splitlines() if line.startswith("knn, ") and line.endswith("%")]
    assert [line.split(":")[0] for line in lines] == [
        "knn, mine",
        "knn, untrained encoder",
        "knn, raw pixels",
    ]
    assert "Accuracy on test images" in said.out

    # A file that comes is another data set to train on, and is said.
    pictures(home / "pictures" / "elk", 30)
    for words in ([], ["--epochs", "2"]):
        assert main(["train", "mine.py", *words]) == 1
        assert "training images of runs/mine have changed" in capfd.readouterr().err
    assert (
        main(["evaluate", "runs/mine", "--protocol", "knn", "--baselines", "none", "--evaluate-on", "train"])
        == 0
    )
    said = capfd.readouterr().out
    assert "test images were trained on, and are left out" in said
    assert "of the test images are also training images of the classifiers" in said
    assert main(["evaluate", "runs/mine", "--protocol", "knn", "--baselines", "none", "--set", "k=3"]) == 0
    (row,) = json.loads((home / "runs/mine/evaluations/knn@k_3.json").read_text())
    assert row["settings"]["k"] == 3


def test_without_labels_a_run_is_trained_to_its_end(home, capfd):
    pictures(home / "pictures", 40)
    assert main(["train", "mine.py", "--size", "16"]) == 0
    said = capfd.readouterr()
    assert "Without online kNN (--knn-every 1): " in said.out
    assert "no labels" in said.out
    assert (home / "runs/mine/checkpoints").exists()
    assert "Next: jaxcl embed runs/mine --out features.csv; jaxcl plot runs/mine" in said.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "folder:picture"], "Did you mean"),
        (["--data", "folder:empty"], "no files in"),
        (["--init", "runs/nothing"], "--init: there is no checkpoint in"),
        (["--batch-size", "1"], "--batch-size must be at least 2"),
        (["--batch-size", "0"], "--batch-size must be at least 2"),
        (["--epochs", "-3"], "--epochs must be more than 0; got -3"),
        (["--epochs", "0.001"], "is less than one step"),
        (["--log-every", "0"], "--log-every must be in training steps, at least 1"),
        (["--learning-rate", "nan"], "--learning-rate must be at least 0, and finite; got nan"),
        (["--value-range", "5", "5"], "LOW below HIGH"),
        (["--labels", "nowhere.csv"], "no file nowhere.csv of labels"),
        (
            ["--evaluate-on", "cats", "--knn-every", "0", "--layout", "splits"],
            "no folders that are named as splits",
        ),
        (["--data", "folder:split", "--evaluate-on", "val"], "has the splits train, test; got 'val'"),
    ],
)
def test_what_cannot_be_trained_leaves_no_run_directory(home, capsys, words, says):
    pictures(home / "pictures", 20)
    (home / "empty").mkdir()
    for name in ("train", "test"):
        pictures(home / "split" / name, 16)
    assert main(["train", "mine.py", *words]) == 1
    assert says in capsys.readouterr().err
    assert not (home / "runs").exists()


def test_a_word_that_is_nearly_right_is_guessed(home, capsys):
    assert main(["trian"]) == 2
    assert "Did you mean `jaxcl train`?" in capsys.readouterr().out
    assert main(["train", "quickstat"]) == 1
    assert "Did you mean quickstart?" in capsys.readouterr().err


def test_how_images_are_read_is_an_option_wherever_other_images_are(home, capsys):
    pictures(home / "pictures" / "cat", 10)
    assert main(["plot", "runs/mine", "--layout", "flat"]) == 1
    assert "name them with --data" in capsys.readouterr().err
    for command in ("evaluate", "embed", "plot"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = capsys.readouterr().out
        assert all(option in said for option in ("--data", "--labels", "--layout", "--value-range"))


def test_a_sweep_of_images_without_labels_ends_before_it_trains(home, capsys):
    pictures(home / "pictures", 20)
    assert main(["sweep", "mine.py", "--seed", "0", "1"]) == 1
    said = capsys.readouterr()
    assert "evaluates by knn, linear, which needs labels" in said.err
    assert "Compiling" not in said.out
    assert not (home / "runs").exists()


def test_a_run_that_learnt_nothing_is_begun_anew_and_one_that_did_is_not(home):
    about = About(10, (8, 8, 3), ())
    runs.create_or_resume("run", "mine.py", CommonKnobs(batch_size=8), about, files=("a.png", "b.png"))
    runs.create_or_resume("run", "mine.py", CommonKnobs(batch_size=4), about, files=("a.png", "c.png"))
    assert json.loads((home / "run/knobs.json").read_text())["batch_size"] == 4
    assert runs.trained_on(home / "run") == ("a.png", "c.png")
    (home / "run/checkpoints/2").mkdir(parents=True)
    with pytest.raises(ValueError, match="other knobs"):
        runs.create_or_resume("run", "mine.py", CommonKnobs(batch_size=8), about, files=("a.png", "c.png"))
    with pytest.raises(ValueError, match=r"have changed: 1 gone, as c.png; 1 new, as d.png"):
        runs.create_or_resume("run", "mine.py", CommonKnobs(batch_size=4), about, files=("a.png", "d.png"))
    (home / "run/trained_on.txt").unlink()  # as an older jaxcl left it
    with pytest.raises(ValueError, match="An older jaxcl held out every tenth file"):
        runs.create_or_resume(
            "run", "mine.py", CommonKnobs(batch_size=4), about._replace(count=9), files=("a.png",)
        )


def test_damaged_files_are_said_once_and_no_epoch_counts_them(home, capfd, monkeypatch):
    monkeypatch.setattr("jaxcl.train.train", lambda recipe, images, **how: how["begin"]())
    pictures(home / "pictures" / "cat", 40)
    pictures(home / "pictures" / "dog", 40)
    for i in range(12):
        (home / "pictures" / "cat" / f"zero{i}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="files in .* were left out") as seen:
        assert main(["train", "mine.py", "--knn-every", "0", "--epochs", "1"]) == 0
    said = capfd.readouterr()
    assert len(seen) == 1
    count = json.loads((home / "runs/mine/run.json").read_text())["about"]["count"]
    files = (home / "runs/mine/trained_on.txt").read_text().split()
    assert count == len(files)
    assert not any("zero" in file for file in files)
    assert f"{count // 16} steps of 16 images" in said.out


def test_a_warning_of_the_command_line_is_its_sentence_alone():
    own = ("2 of 9 files were left out", UserWarning, f"{runs.__path__[0]}/images.py", 7)
    with warnings_in_sentences("train"):
        assert warnings.formatwarning(*own) == "jaxcl train: 2 of 9 files were left out\n"
        assert "elsewhere.py:7: UserWarning" in warnings.formatwarning(*own[:2], "elsewhere.py", 7)
    assert "images.py:7: UserWarning" in warnings.formatwarning(*own)


def test_test_images_that_were_trained_on_are_left_out_or_said(home):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    files = ("a/0.png", "a/1.png", "b/2.png", "b/3.png")
    test = Images("test", images, np.array([0, 0, 1, 1]), ("a", "b"), files=files)
    (home / "trained_on.txt").write_text("a/1.png\nb/2.png\nb/9.png\n")
    run = SimpleNamespace(dir=home, knobs=CommonKnobs(data="folder:/data"))
    said = []
    left = without_trained_on(run, {"": (test, test)}, None, said.append)[""][1]
    assert left.files == ("a/0.png", "b/3.png")
    assert left.images.ravel().tolist() == [0, 3]
    assert left.labels.tolist() == [0, 1]
    assert said == ["2 of 4 test images were trained on, and are left out."]
    # The same names elsewhere are other files.
    other = without_trained_on(run, {"": (test, test)}, "folder:/other", said.append)
    assert other[""][1] is test
    seen = test._replace(files=("a/1.png", "b/2.png", "b/9.png", "a/1.png"))
    assert without_trained_on(run, {"": (test, seen)}, None, said.append)[""][1] is seen
    assert said[-1].startswith("All 4 test images were trained on")
    (home / "trained_on.txt").unlink()
    without_trained_on(run, {"": (test, test)}, None, said.append)
    assert "does not record which files" in said[-1]


@pytest.mark.parametrize("trained", ["", "#two"])
@pytest.mark.parametrize("asked", [None, "", "#two"])
def test_a_list_of_classes_is_no_part_of_the_folder_whose_images_are_left_out(
    home, monkeypatch, trained, asked
):
    monkeypatch.setitem(classes.CLASS_LISTS, "two", ("a", "b"))
    files = ("a/0.png", "a/1.png", "b/2.png")
    test = Images("test", np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 0, 1]), ("a", "b"), files=files)
    (home / "trained_on.txt").write_text("a/1.png\n")
    run = SimpleNamespace(dir=home, knobs=CommonKnobs(data=f"folder:/data{trained}"))
    data = None if asked is None else f"folder:/data{asked}"
    left = without_trained_on(run, {"": (test, test)}, data, lambda line: None)[""][1]
    assert left.files == ("a/0.png", "b/2.png")


def test_links_to_training_images_are_left_out(home):
    """To files, and to the folders that they are in, from either side."""
    for name in ("data/train/a", "data/test/a", "store"):
        (home / name).mkdir(parents=True)
    for name in ("data/train/a/0.png", "data/test/a/1.png", "store/2.png"):
        (home / name).touch()
    (home / "data/test/a/3.png").symlink_to("../../train/a/0.png")
    (home / "data/train/a/4.png").symlink_to(home / "store/2.png")
    (home / "data/test/b").symlink_to(home / "store")
    (home / "trained_on.txt").write_text("train/a/0.png\ntrain/a/4.png\n")
    files = ("test/a/1.png", "test/a/3.png", "test/b/2.png")
    test = Images("test", np.zeros((3, 1, 1, 1), np.uint8), np.zeros(3, int), ("a",), files=files)
    run = SimpleNamespace(dir=home, knobs=CommonKnobs(data=f"folder:{home}/data"))
    left = without_trained_on(run, {"": (test, test)}, None, lambda line: None)[""][1]
    assert left.files == ("test/a/1.png",)


def test_other_test_images_are_none_that_were_trained_on(home, capfd):
    """Not as links elsewhere, and not where they are asked for by name."""
    pictures(home / "pictures/train/cat", 9)
    pictures(home / "pictures/train/dog", 9)
    pictures(home / "pictures/test/cat", 2)
    pictures(home / "other/test/cat", 2)
    pictures(home / "other/test/dog", 3)
    (home / "other/test/dog/link.png").symlink_to(home / "pictures/train/dog/dog1.png")
    assert main(["train", "mine.py", "--knn-every", "0"]) == 0
    said = []
    asked = {"protocols": ("knn",), "baselines": (), "say": said.append}
    (row,) = runs.evaluate_run("runs/mine", test_data="folder:other", **asked)
    assert row["test_images"] == 5
    assert "1 of 6 test images were trained on, and are left out." in said
    (row,) = runs.evaluate_run("runs/mine", test_data="folder:pictures", evaluate_on="train", **asked)
    assert "All 18 test images were trained on: their accuracy is not that of new images." in said


@pytest.mark.parametrize("options", [[], ["--value-range", "0", "4095"], ["--encoded"]])
def test_later_images_are_on_the_scale_of_those_that_were_trained_on(home, capfd, options):
    """Twelve bits in the training folder; the darkest of its files, alone in a folder, have ten."""
    for k in range(20):
        name = home / "deep" / ("train" if k < 18 else "test") / ("cat", "dog")[k % 2] / f"{k}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(k).integers(0, 901 if k < 4 else 4081, (16, 16)).astype(np.uint16)
        Image.fromarray(levels).save(name)
        if k < 4:
            (home / f"dark/{name.parent.name}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(levels).save(home / f"dark/{name.parent.name}/{k}.png")
    (home / "mine.py").write_text(CONFIG.replace("augment.flip()", "augment.crop_and_flip(size)"))
    train = ["train", "mine.py", "--data", "folder:deep", "--knn-every", "0", "--input", "device"]
    assert main([*train, "--size", "16", *options]) == 0
    assert main(["embed", "runs/mine", "--out", "all.npz"]) == 0
    capfd.readouterr()
    assert main(["embed", "runs/mine", "--out", "some.npz", "--data", "folder:dark"]) == 0
    assert "as in training: 0 becomes black and 4095 white" in capfd.readouterr().out
    whole, some = np.load("all.npz"), np.load("some.npz")
    places = [whole["files"].tolist().index(f"train/{file}") for file in some["files"]]
    np.testing.assert_array_equal(some["features"], whole["features"][places])
    run = runs.open_run("runs/mine")
    assert run.value_range == (0, 4095)
    assert other_split(run, "folder:dark", "train", None).images.max() == round(900 / 4095 * 255)
    assert other_split(run, "folder:dark", "train", None, value_range=(0, 900)).images.max() == 255
    # On that scale numbers between 0 and 1 are all black.
    floats = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    np.savez(home / "floats.npz", train_images=floats, test_images=floats)
    with pytest.raises(
        ValueError, match="are all 0 of 255. Say what is black and white in these: --value-range"
    ):
        other_split(run, "npz:floats.npz", "train", None)
    assert other_split(run, "npz:floats.npz", "train", None, value_range=(0, 1)).images.max() > 240


def test_masks_of_zeros_and_ones_are_said_to_be_black(home):
    masks = np.random.default_rng(0).integers(0, 2, (20, 4, 4))
    for name, array in (("whole", masks), ("bytes", masks.astype(np.uint8))):
        np.savez(home / f"{name}.npz", images=array)
        assert "all images are black" in data.load(f"npz:{name}.npz", "train").notes[-1]
    np.savez(home / "white.npz", images=255 * masks.astype(np.uint8))
    assert data.load("npz:white.npz", "train").notes == ()


def test_raw_pixels_are_projected_where_a_classifier_of_them_would_take_long():
    def sets(n, side, classes):
        images = np.broadcast_to(np.uint8(0), (n, side, side, 3))
        return {"": (Images("train", images, np.arange(n) % classes), Images("test", images[:1]))}

    assert projection_width(sets(50_000, 32, 10), ["knn", "linear"]) is None  # CIFAR-10
    assert projection_width(sets(50_000, 32, 100), ["linear"]) == 400
    assert projection_width(sets(100_000, 64, 200), ["linear"]) == 100
    assert projection_width(sets(100_000, 64, 200), ["knn", "knn200"]) is None
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(8, 16, 16, 3)).astype(np.float32)
    y = np.asarray(projected_pixels(400)(x))
    distances = [np.linalg.norm(a - b) for a, b in zip(x[:4], x[4:], strict=True)]
    projected = [np.linalg.norm(a - b) for a, b in zip(y[:4], y[4:], strict=True)]
    np.testing.assert_allclose(projected, distances, rtol=0.2)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib.figure"), r"jaxcl[plot]"),
        (ModuleNotFoundError("No module named 'helpers'", name="helpers"), "No module named 'helpers'"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "no permission to use /data/x"),
        (FileExistsError(errno.EEXIST, "File exists", "runs"), "runs is in the way: File exists"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "runs/a"), "runs/a is in the way"),
        (
            OSError(errno.ENOSPC, "No space left on device", "m.jsonl"),
            "the disk is full while m.jsonl was written",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "r/new"),
            "r/new cannot be written, as its disk can only",
        ),
        (OSError(errno.EIO, "Input/output error", "r/file"), "r/file: Input/output error."),
        (ValueError("INTERNAL: write: No space left on device"), "the disk is full"),
        (RuntimeError("Unable to initialize backend 'cuda': no plugin"), "JAX_PLATFORMS is 'cuda': unset it"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "not enough memory"),
        (RuntimeError("something of ours"), None),
        (KeyError("knob"), None),
    ],
)
def test_errors_of_the_users_world_are_sentences_and_ours_are_not(error, says, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    sentence = in_a_sentence(error)
    assert (sentence is None) == (says is None)
    assert says is None or says in sentence


def test_a_platform_of_which_jax_says_nothing_is_a_sentence(monkeypatch):
    # As jax 0.12 ends where JAX_PLATFORMS=cuda and the plugin is not installed.
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    found = []
    for file in ("/jax/_src/xla_bridge.py", "/elsewhere.py"):
        try:
            exec(compile("assert None is not None", file, "exec"))
        except AssertionError as error:
            found.append(in_a_sentence(error))
    assert found[0].startswith("jax found no device. JAX_PLATFORMS is 'cuda': unset it, or install")
    assert found[1] is None


def test_debug_shows_where_an_error_arose(home, capsys):
    assert main(["train", "nowhere.py"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    for words in (["--debug", "train", "nowhere.py"], ["train", "nowhere.py", "--debug"]):
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "Traceback" in said
        assert said.endswith("lists those that come with jaxcl.\n")


def test_an_evaluation_that_nobody_watches_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    now = [0.0]
    with progress_bar(clock=lambda: now[0]) as bar:
        bar.progress("linear, mine", "embedding", 0.0)
        now[0] = 10.0
        bar.progress("linear, mine", "embedding", 0.2)
        now[0] = 25.0
        bar.progress("linear, mine", "embedding", 0.5)
        bar.say("linear, mine: 60.0 %")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["linear, mine", "linear, mine: embedding, 50%, 25 s left of it", "linear, mine: 60.0 %"]


def test_names_of_people_s_files_and_classes_are_shown_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    with progress_bar() as bar:
        bar.say("folder:new: 5 images of class [red]")
    show("of [b]", ["class :cat:"], [["[red] :dog:"]])
    said = capsys.readouterr().out
    for name in ("folder:new: 5 images of class [red]", "of [b]", "class :cat:", "[red] :dog:"):
        assert name in said


def test_settings_are_numbers_lists_and_words():
    given = settings_of(["k=20", "vote=weighted", "l2=[0.1,1]", "learning-rate=0.5"])
    assert given == {"k": 20, "vote": "weighted", "l2": [0.1, 1], "learning_rate": 0.5}
    known = {"a": lambda key, subject, *, k=1: 0, "b": lambda key, subject, *, draws=2, views=None: 0}
    assert settings_taken(known, ["a", "b"], {"k": 3}) == {"a": {"k": 3}, "b": {}}
    with pytest.raises(ValueError, match="a has no setting x; it has k; b has no setting x; it has draws"):
        settings_taken(known, ["a", "b"], {"x": 3})
    with pytest.raises(ValueError, match="a's setting k is a whole number, as 1; got 'many'"):
        settings_taken(known, ["a"], {"k": "many"})


def test_knobs_that_are_traced_are_not_judged():
    check_knobs(CommonKnobs(learning_rate=None, epochs=1))  # None stands in for what is no number yet
    with pytest.raises(ValueError, match="--size must be"):
        check_knobs(CommonKnobs(size=0))


def test_a_file_of_labels_means_the_same_from_everywhere(home):
    (home / "l.csv").write_text("a,b\n")
    assert resolved(CommonKnobs(labels="l.csv")).labels == f"{home}/l.csv"
    assert resolved(CommonKnobs(labels="l.csv:breed")).labels == f"{home}/l.csv:breed"
    assert resolved(CommonKnobs(labels="with_the_data.csv")).labels == "with_the_data.csv"


def test_few_shot_names_the_class_that_has_too_few_images():
    x, y = np.eye(6, dtype=np.float32), np.array([0, 0, 0, 1, 1, 2])
    with pytest.raises(ValueError, match=r"class 2 \(elk\) has only 1 training images.*--set shots=1"):
        few_shot(None, x, y, x, y, shots=2, names=("cat", "dog", "elk"))
