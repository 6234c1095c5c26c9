"""What an evaluation is asked is taken as it is meant, or refused; another question has another name."""

import contextlib
import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcl.cli import main
from jaxcl.cli.words import baselines_of, settings_of
from jaxcl.evaluate import PROTOCOLS, Subject, embed, transforms
from jaxcl.runs import BASELINES, check_asked, evaluate_run, open_run
from jaxcl.runs.asked import file_of
from jaxcl.runs.images import fitted_to
from jaxcl.runs.joint import joint
from jaxcl.typing import Images

# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "words", "other"),
    [
        ("knn", "temperature=0.2", "vote=weighted"),
        ("knn200", "temperature=0.2 vote=majority", "vote=weighted"),
        ("linear_sgd", "drops=[0.5,0.9]", "schedule=steps"),
        ("linear_sgd", "drop_factor=0.2", "schedule=steps"),
        ("linear_moco", "drops=[0.5] schedule=cosine", "schedule=steps"),
        ("linear_moco", "drop_factor=0.2 schedule=constant", "schedule=steps"),
        ("deep", "drops=[0.5]", "schedule=steps"),
        ("deep", "drop_factor=0.5", "schedule=steps"),
        ("finetune10", "drops=[0.5]", "schedule=steps"),
        ("finetune10", "drop_factor=0.5", "schedule=steps"),
        ("linear_sgd", "min_area=0.2", "augmentation=torchvision"),
        ("linear_moco", "min_area=0.2 augmentation=recipe", "augmentation=torchvision"),
        ("mlp", "min_area=0.2 augmentation=none", "augmentation=torchvision"),
        ("finetune1", "trust_coefficient=0.1", "optimizer=lars"),
        ("finetune_grid", "trust_coefficient=0.1", "optimizer=lars"),
        ("mlp", "dropout=0.5 hidden=0", "hidden=1024"),
    ],
)
def test_a_setting_that_another_one_makes_idle_is_refused_by_that_ones_name(protocol, words, other):
    given = settings_of(words.split())
    name = next(iter(given))
    with pytest.raises(ValueError, match=f"{protocol} reads {name} only with .*{other}") as told:
        check_asked([protocol], settings=given)
    assert f"leave {name} out" in str(told.value)
    both = given | settings_of([other])
    assert check_asked([protocol], settings=both)[protocol].keys() == both.keys()


def test_of_two_protocols_the_one_that_reads_a_setting_takes_it():
    taken = check_asked(["knn", "knn200"], settings={"temperature": 0.2})
    assert taken == {"knn": {}, "knn200": {"temperature": 0.2}}
    # Those whose own choice reads it need no other word.
    assert check_asked(["linear_moco"], settings={"drops": [0.5, 0.9], "min_area": 0.2})["linear_moco"]


@pytest.mark.parametrize(
    ("protocol", "word", "said"),
    [
        ("knn", "k=3.5", "setting k is a whole number, as 10; got 3.5"),
        ("knn", "k=true", "setting k is a whole number"),
        ("knn", "k=null", "setting k is a whole number"),
        ("linear_sgd", "epochs=1.5", "setting epochs is a whole number, as 100; got 1.5"),
        ("finetune1", "epochs=1.5", "setting epochs is a whole number, as 10; got 1.5"),
        ("fewshot5", "shots=2.5", "setting shots is a whole number, as 5; got 2.5"),
        ("corruption", "images=2.5", "setting images is a whole number"),
        ("corruption", "images=0", "images is a number 1 or more; got 0"),
        ("deep", "inner=0.5", "setting inner is a whole number"),
        ("finetune1", "nesterov=1", "setting nesterov is a truth value"),
        ("linear_sgd", "learning_rate=fast", "setting learning_rate is a number, as 0.1; got 'fast'"),
        ("linear_sgd", "drops=0.5", "setting drops is a list of numbers, as .*; got 0.5"),
        ("linear_sgd", 'drops=["a"]', "setting drops is a list of numbers"),
        ("corruption", "names=[1]", "setting names is a list of words"),
        ("linear_sgd", "learning_rate=-1", "learning_rate is a number 0 or more; got -1.0"),
        ("linear_sgd", "learning_rate=NaN", "learning_rate is a number 0 or more; got nan"),
        ("fewshot5", "learning_rate=-1", "learning_rate is a number 0 or more"),
        ("mlp", "learning_rate=-1", "learning_rate is a number 0 or more"),
        ("deep", "momentum=-3", "momentum is a number from 0 on, and below 1; got -3.0"),
        ("finetune10", "momentum=1", "momentum is a number from 0 on, and below 1; got 1.0"),
        ("finetune10", "weight_decay=-0.1", "weight_decay is a number 0 or more; got -0.1"),
        ("finetune_grid", "momentum=-3", "momentum is a number"),
        ("linear", "iterations=0", "iterations is a number 1 or more; got 0"),
    ],
)
def test_a_number_of_the_wrong_kind_or_out_of_range_is_answered_with_a_sentence(protocol, word, said):
    with pytest.raises(ValueError, match=said):
        check_asked([protocol], settings=settings_of([word]))


def test_a_whole_number_may_be_written_with_a_point_and_a_number_without():
    taken = check_asked(["knn", "linear_sgd"], settings={"k": 20.0, "learning_rate": 1})
    assert json.dumps(taken) == '{"knn": {"k": 20}, "linear_sgd": {"learning_rate": 1.0}}'
    assert check_asked(["finetune1"], settings={"epochs": None})["finetune1"] == {"epochs": None}


def test_ranges_hold_for_whoever_calls_a_protocol_itself():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    subject = Subject.of_features(x, np.arange(20) % 2, x, np.arange(20) % 2)
    for name, settings in {
        "linear_sgd": {"momentum": -3.0},
        "mlp": {"weight_decay": -1.0},
        "deep": {"learning_rate": -1.0},
        "fewshot5": {"learning_rate": -1.0},
    }.items():
        ((setting, _),) = settings.items()
        with pytest.raises(ValueError, match=f"{setting} is a number"):
            PROTOCOLS[name](jax.random.key(0), subject, **settings)


def test_the_protocol_that_was_asked_for_keeps_its_name_whatever_its_shots():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    subject = Subject.of_features(x, np.arange(20) % 2, x, np.arange(20) % 2)
    row = PROTOCOLS["fewshot5"](jax.random.key(0), subject, shots=3, draws=2, steps=2)
    assert (row["protocol"], row["settings"]["shots"]) == ("fewshot5", 3)


def test_names_of_files_are_such_as_a_disk_takes_and_tell_long_ones_apart():
    one, other = (file_of("knn", f"folder:/{'x' * 300}{end}", "k=1") for end in "ab")
    assert one != other
    assert max(len(one), len(other)) < 255


# --- baselines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unless_given", "none_given"), [(BASELINES, list(BASELINES)), ((), [])])
def test_words_for_baselines_mean_the_same_in_every_command(unless_given, none_given):
    assert baselines_of(None, unless_given=unless_given) == none_given
    assert baselines_of([], unless_given=unless_given) == list(BASELINES)
    assert baselines_of(["none"], unless_given=unless_given) == []
    assert baselines_of(["untrained"], unless_given=unless_given) == ["untrained encoder"]
    with pytest.raises(ValueError, match="--baselines none cannot be given with other names; got none raw"):
        baselines_of(["none", "raw"], unless_given=unless_given)


@pytest.mark.parametrize(("command", "said"), [("evaluate", "raw and untrained"), ("sweep", "none")])
def test_help_says_which_baselines_there_are_unless_they_are_named(command, said, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"default: {said}; --baselines with no name means raw and untrained" in " ".join(
        capsys.readouterr().out.split()
    )


# --- images that an encoder or a corruption sees ------------------------------------------------------------------


def test_images_that_cannot_be_corrupted_are_refused_before_anything_is_embedded():
    images = Images("four", np.zeros((8, 4, 4, 4), np.uint8), np.arange(8) % 2)
    subject = Subject(lambda x: pytest.fail("it was embedded"), images, images)
    with pytest.raises(ValueError, match="those of 'four' have 4. Leave corruption out"):
        PROTOCOLS["corruption"](jax.random.key(0), subject)


def test_rotated_images_are_made_a_batch_at_a_time_and_are_numpys():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 3), np.uint8)

    class Counted:
        """Images that stay encoded, as it were: it is counted how many are decoded at a time."""

        shape, dtype, ndim, most = pixels.shape, pixels.dtype, 4, 0

        def __len__(self):
            return len(pixels)

        def __getitem__(self, rows):
            self.most = max(self.most, len(pixels[rows]))
            return pixels[rows]

    images = Counted()
    for which in range(4):
        lazy = transforms._Rotated(images, which)
        features = embed(lambda x: 255 * x.reshape(len(x), -1), lazy, batch_size=2)
        expected = np.stack([np.rot90(image, which) for image in pixels]).reshape(7, -1)
        np.testing.assert_allclose(features, expected, atol=1e-3)
    assert images.most <= 2 * jax.device_count()


def test_images_that_are_fitted_to_are_known_by_files_and_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), np.uint8)
    names = tuple(f"{i}.png" for i in range(6))
    train = Images("t", pixels, files=names)
    assert fitted_to(train, train) == 6
    assert fitted_to(train, Images("t", pixels[2:4], files=names[2:4])) == 2
    assert fitted_to(train, Images("t", pixels[:2], files=names[2:4])) == 0  # of another folder
    assert fitted_to(Images("t", pixels), Images("t", pixels)) == 6
    assert fitted_to(Images("t", pixels), Images("t", pixels[::-1])) == 0
    assert fitted_to(Images("t", pixels), Images("t", pixels[:3])) == 0


# --- a run --------------------------------------------------------------------------------------------------------

CONFIG = '''
"""A run of seconds."""

from dataclasses import dataclass

from jaxcl import CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "folder:pictures"
    layout: str = "flat"
    labels: str = "grays.csv"
    probe: bool = True
    epochs: float = 5
    batch_size: int = 16


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


def labels_file(names):
    return "file,class\n" + "".join(f"{file},{name}\n" for file, name in names.items())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pictures, dark and light, whose classes a file says, and a run with an online classifier."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "pictures").mkdir()
    names = {}
    for i in range(64):
        gray = np.random.default_rng(i).integers(0, 60, (8, 8, 3)) + 160 * (i % 2)
        Image.fromarray(gray.astype(np.uint8)).save(folder / "pictures" / f"{i}.png")
        names[f"{i}.png"] = ("dark", "light")[i % 2]
    (folder / "grays.csv").write_text(labels_file(names))
    (folder / "mine.py").write_text(CONFIG)
    with contextlib.chdir(folder):
        assert main(["train", "mine.py", "--run-dir", "run"]) == 0
        tested = open_run("run").data().test.files
    return folder, names, tested


@pytest.fixture
def home(world, monkeypatch):
    monkeypatch.chdir(world[0])
    return world


def test_a_classifier_trained_along_is_asked_by_the_names_of_its_own_classes(home):
    folder, names, tested = home
    knn, usual = evaluate_run("run", protocols=["knn"], baselines=())
    assert usual["protocol"] == "joint"
    assert usual["accuracy"] != 50  # so that classes that are taken for each other show
    assert "variant" not in usual
    # A class that comes first in the order of names gives the others other numbers.
    one = next(file for file in names if file not in tested)
    (folder / "more.csv").write_text(labels_file(names | {one: "ant"}))
    _, renumbered = evaluate_run("run", protocols=["knn"], baselines=(), labels="more.csv")
    assert renumbered["accuracy"] == usual["accuracy"]
    assert renumbered["by_class"] == usual["by_class"]
    assert renumbered["variant"] == f"labels={folder}/more.csv"
    # Two names that change places: what was right is wrong.
    swapped = {file: {"dark": "light", "light": "dark"}[name] for file, name in names.items()}
    (folder / "swapped.csv").write_text(labels_file(swapped))
    _, wrong = evaluate_run("run", protocols=["knn"], baselines=(), labels="swapped.csv")
    assert wrong["accuracy"] == pytest.approx(100 - usual["accuracy"])
    # Names that it never heard of.
    strange = {file: name.replace("dark", "noir") for file, name in names.items()}
    (folder / "strange.csv").write_text(labels_file(strange))
    found = evaluate_run(
        "run", protocols=["knn"], baselines=(), labels="strange.csv", say=(said := []).append
    )
    assert [row["protocol"] for row in found] == ["knn"]
    (line,) = (line for line in said if line.startswith("Without joint: the online classifier"))
    assert "was trained on the classes dark, light; 1 of the classes" in line
    assert "noir" in line
    # Files of the run's own question are as they were.
    assert json.loads((folder / "run/evaluations/joint.json").read_text()) == [usual]
    assert json.loads((folder / "run/evaluations/knn.json").read_text()) == [knn]


def test_logits_are_of_the_names_that_were_trained_on():
    pixels = np.zeros((4, 1, 1, 1), np.uint8)
    pixels[2:] = 255

    def classify(x):  # white is class 1 of ("black", "white")
        return x.reshape(-1, 1) * np.array([-1.0, 1.0]) + np.array([0.5, 0.0])

    for classes, labels in {("black", "white"): [0, 0, 1, 1], ("white", "black"): [1, 1, 0, 0]}.items():
        found = joint(classify, Images("two", pixels, np.array(labels), classes), ("black", "white"))
        assert found["accuracy"] == 100
        assert found["by_class"] == {"black": 100, "white": 100}
    with pytest.raises(ValueError, match="1 of the classes of two are not among them: red"):
        joint(
            classify,
            Images("two", pixels, np.array([0, 1, 2, 2]), ("red", "black", "white")),
            ("black", "white"),
        )


def test_where_one_tests_on_what_is_fitted_to_that_is_said(home):
    said = []
    evaluate_run("run", protocols=["knn"], baselines=(), say=said.append)
    assert not any("training images of the classifiers" in line for line in said)
    evaluate_run("run", protocols=["knn"], baselines=(), evaluate_on="train", say=said.append)
    (line,) = (line for line in said if "training images of the classifiers" in line)
    assert "each finds itself as its nearest neighbor" in line


def test_a_fit_that_did_not_converge_is_said(home):
    said = []
    how = {"baselines": (), "say": said.append}
    (row, _) = evaluate_run("run", protocols=["linear"], settings={"iterations": 1, "l2": [1e-4]}, **how)
    assert row["converged"] is False
    assert any("linear, run: the fit did not converge in 1 iterations" in line for line in said)
    said.clear()
    (row, _) = evaluate_run("run", protocols=["linear"], **how)
    assert row["converged"] is True
    assert not any("converge" in line for line in said)


def test_options_that_would_do_nothing_are_refused(home):
    with pytest.raises(ValueError, match="--encoded is for the images of --data"):
        evaluate_run("run", protocols=["knn"], encoded=True)
    with pytest.raises(ValueError, match="--labels, --layout may be meant for --data or for --test-data"):
        evaluate_run("run", protocols=["knn"], data="digits", test_data="digits", labels="x", layout="flat")
    with pytest.raises(ValueError, match="objectnet13:PATH has a single layout; leave out --layout"):
        evaluate_run("run", protocols=["knn"], test_data="objectnet13:x", layout="flat")


def test_how_images_are_read_reaches_other_test_images(home):
    folder, names, _ = home
    (folder / "others" / "test").mkdir(parents=True)
    some = [file for file in names if names[file] == "dark"][:3]
    for file in some:
        (folder / "others" / "test" / file).write_bytes((folder / "pictures" / file).read_bytes())
    (folder / "others.csv").write_text(labels_file({file: "light" for file in some}))
    how = {"baselines": (), "test_data": "folder:others"}
    rows = evaluate_run("run", protocols=["knn"], labels="others.csv", **how)
    (row,) = (row for row in rows if row["protocol"] == "knn")
    assert (row["test_images"], row["accuracy"]) == (3, 0)  # by labels that are all wrong
    assert row["variant"] == "labels=others.csv"
