"""Folders as people have them: which files are which split and class, and what is said where that is in doubt."""

import numpy as np
import pytest
from PIL import Image

from jaxcl import data
from jaxcl.data import load
from jaxcl.data.labels import Names, labels_in, read_table
from jaxcl.data.layout import layout_of
from jaxcl.data.splits import held_out_by_name, kind_of


def images(folder, n=3, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(folder / f"{folder.name}{i}{ending}")


def split(root, classes=("cat", "dog", "elk"), n=3):
    for name in classes:
        images(root / name, n)


def both(root, **options):
    return [load(f"folder:{root}", name, **options) for name in ("train", "test")]


def numbers(labels):
    return None if labels is None else labels.tolist()


# --- Splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("Training", "Testing"),
        ("TRAIN", "VAL"),
        ("train", "dev"),
        ("train", "eval"),
        ("train", "val"),
        ("train_images", "test_images"),
        ("training_set", "test_set"),
    ],
)
@pytest.mark.parametrize("wrapped", ["", "wrap/data"])
def test_splits_are_recognised_by_case_synonyms_and_through_a_wrapping_folder(tmp_path, train, test, wrapped):
    split(tmp_path / wrapped / train, n=4)
    split(tmp_path / wrapped / test, ("dog", "elk"), n=2)
    learnt, held = both(tmp_path)
    assert learnt.classes == held.classes == ("cat", "dog", "elk")
    assert numbers(learnt.labels) == [0] * 4 + [1] * 4 + [2] * 4
    assert numbers(held.labels) == [1, 1, 2, 2]
    assert learnt.notes[0].endswith(f"{train}/: 3 classes, 12 images; {test}/: 2 classes, 4 images.")


def test_both_test_and_val_are_there_to_be_asked_for(tmp_path):
    split(tmp_path / "train")
    split(tmp_path / "test", n=2)
    split(tmp_path / "val", n=1)
    spec = f"folder:{tmp_path}"
    found = [len(load(spec, name).images) for name in ("train", "test", "val", "validation", "Val")]
    assert found == [9, 6, 3, 3, 3]
    assert len(data.open(spec, evaluate_on="val").test.images) == 3
    split(tmp_path / "dev", n=1)
    with pytest.raises(
        ValueError, match="several splits that 'validation' may mean: dev, val.*--evaluate-on dev"
    ):
        load(spec, "validation")
    assert len(load(spec, "dev").images) == 3


@pytest.mark.parametrize("wrapped", ["", "data"])
def test_splits_inside_the_classes_are_the_splits(tmp_path, wrapped):
    for name, n in (("cat", 12), ("dog", 4)):
        images(tmp_path / wrapped / name / "Train", n)
        images(tmp_path / wrapped / name / "Test" / "photos", 2)
    images(tmp_path / wrapped / "dog" / "val", 1)
    learnt, held = both(tmp_path)
    assert learnt.classes == held.classes == ("cat", "dog")
    assert numbers(learnt.labels) == [0] * 12 + [1] * 4
    assert numbers(held.labels) == [0, 0, 1, 1]
    assert not set(learnt.files) & set(held.files)
    assert all("/Test/" in name for name in held.files)
    assert numbers(load(f"folder:{tmp_path}", "val").labels) == [1]
    says = (
        "Train: 2 classes, 16 images; Test: 2 classes, 4 images; val: 1 class, 1 image; the splits lie inside"
    )
    assert says in learnt.notes[0]
    # Otherwise said, all below a class is of it, and files are held out by their names.
    learnt, held = both(tmp_path, layout="classes")
    assert len(learnt.files) + len(held.files) == 21
    assert {"cat", "dog"} == {name.removeprefix("data/").split("/")[0] for name in learnt.files}


def test_splits_inside_some_of_the_classes_are_an_error_that_shows_both_readings(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / name / "train", 9)
        images(tmp_path / name / "test", 2)
    images(tmp_path / "elk", 20)
    with pytest.raises(
        ValueError,
        match="two ways: as 3 classes, cat, dog, elk, with the splits inside them, as cat/test, where elk differs"
        ".*--layout splits or --layout classes",
    ):
        load(f"folder:{tmp_path}", "train")
    learnt, held = both(tmp_path, layout="splits")
    assert (learnt.classes, len(learnt.files), len(held.files)) == (("cat", "dog"), 18, 4)
    learnt, held = both(tmp_path, layout="classes")
    assert (learnt.classes, len(learnt.files) + len(held.files)) == (("cat", "dog", "elk"), 42)


def test_pictures_of_trains_below_a_class_are_no_split(tmp_path):
    for kind in ("car", "train"):
        images(tmp_path / "land" / kind, 10)
    images(tmp_path / "sea" / "ship", 20)
    assert load(f"folder:{tmp_path}", "train").classes == ("land", "sea")


def test_a_single_class_is_no_label(tmp_path):
    for root in (
        tmp_path / "flat" / "all",
        tmp_path / "split" / "train" / "all",
        tmp_path / "split" / "test" / "all",
    ):
        images(root, 30)
    for name in ("flat", "split"):
        learnt, held = both(tmp_path / name)
        assert learnt.labels is None
        assert held.labels is None
        assert learnt.classes == ()
        assert "no labels" in learnt.notes[0]


def test_a_level_of_images_within_a_split_or_a_class_is_looked_through(tmp_path):
    split(tmp_path / "a" / "train" / "images")
    split(tmp_path / "a" / "test" / "images")
    for name in ("cat", "dog"):
        images(tmp_path / "b" / "train" / name / "images")
        images(tmp_path / "b" / "test" / name)
    for root, classes in ((tmp_path / "a", ("cat", "dog", "elk")), (tmp_path / "b", ("cat", "dog"))):
        learnt, held = both(root)
        assert learnt.classes == held.classes == classes
        assert (
            numbers(learnt.labels)
            == numbers(held.labels)
            == [k for k in range(len(classes)) for _ in range(3)]
        )


def test_tiny_imagenet_as_it_is_distributed(tmp_path):
    for name in ("n01", "n02", "n03"):
        images(tmp_path / "train" / name / "images", 2, ".JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("images0.JPEG 0 0 3 3\n")
    images(tmp_path / "val" / "images", 4, ".JPEG")
    rows = [f"images{i}.JPEG\t{name}\t0\t0\t3\t3\n" for i, name in enumerate(("n03", "n01", "n01", "n02"))]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(rows))
    images(tmp_path / "test" / "images", 5, ".JPEG")
    (tmp_path / "wnids.txt").write_text("n02\nn01\nn03\n")
    (tmp_path / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tbullfrog\n")
    with pytest.warns(UserWarning, match="3 of 9 files"):
        learnt = load(f"folder:{tmp_path}", "train")
    held = load(f"folder:{tmp_path}", "test")  # that of which the labels are there
    assert held.notes[-1] == "val/ is used as test, which has no labelled images."
    assert learnt.classes == held.classes == ("n01", "n02", "n03")
    assert numbers(learnt.labels) == [0, 0, 1, 1, 2, 2]
    assert numbers(held.labels) == [2, 0, 0, 1]
    says = "train/: 3 classes, 6 images; test/: no labels, 5 images; val/: 3 classes, 4 images"
    assert says in learnt.notes[0]
    assert "classes by val/val_annotations.txt" in learnt.notes[0]
    assert data.open(f"folder:{tmp_path}").about.count == 6


@pytest.mark.parametrize(
    "table",
    [
        "id,breed\ntrain0,elk\ntrain1,cat\ntrain2,dog\ntrain3,cat\n",
        "image_id;x;label\ntrain3.png;1;cat\ntrain1.png;1;cat\ntrain0.png;1;elk\ntrain2.png;2;dog\n",
        "train/train0.png elk\ntrain/train1.png cat\ntrain/train2.png dog\ntrain/train3.png cat\n",
        "file,cat,dog,elk\ntrain0,0,0,1\ntrain1,1,0,0\ntrain2,0,1,0\ntrain3,1,0,0\n",
    ],
)
def test_kaggles_layouts_a_table_beside_flat_folders(tmp_path, table):
    images(tmp_path / "train", 4)
    images(tmp_path / "test", 2)
    (tmp_path / "labels.csv").write_text(table)
    (tmp_path / "sample_submission.csv").write_text("id,cat,dog,elk\ntest0,0.3,0.3,0.4\ntest1,0.3,0.3,0.4\n")
    learnt, held = both(tmp_path)
    assert learnt.classes == ("cat", "dog", "elk")
    assert numbers(learnt.labels) == [2, 0, 1, 0]
    assert held.labels is None
    assert "classes by labels.csv" in learnt.notes[0]
    assert f"--data folder:{tmp_path}/train --labels {tmp_path}/labels.csv holds it out" in learnt.notes[0]
    alone = load(f"folder:{tmp_path}/train", "train", labels=f"{tmp_path}/labels.csv")
    assert alone.classes == learnt.classes


def test_one_folder_of_images_and_a_table(tmp_path):
    images(tmp_path / "images", 40)
    rows = [f"images/images{i}.png,{i % 11}" for i in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(["path,category", *rows]))
    learnt, held = both(tmp_path)
    assert learnt.classes == tuple(map(str, range(11)))  # counted, not spelt
    for part in (learnt, held):
        assert numbers(part.labels) == [int(file[13:-4]) % 11 for file in part.files]
    rows = [f"images{i}.png,{'dog' if i % 3 else 'cat'},{'valid' if i < 8 else 'train'}" for i in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(["name,label,split", *rows]))
    learnt, held = both(tmp_path)
    assert sorted(held.files) == sorted(f"images/images{i}.png" for i in range(8))
    assert len(learnt.files) == 32


def test_labels_names_a_table_and_its_column(tmp_path):
    images(tmp_path / "pictures", 20)
    lines = [
        "name,color,shape",
        *(f"pictures{i},{'red' if i < 10 else 'blue'},{'ring' if i % 2 else 'disc'}" for i in range(20)),
    ]
    (tmp_path / "about.csv").write_text("\n".join(lines))
    undecided = load(f"folder:{tmp_path}", "train")
    assert undecided.labels is None
    assert "several columns that may be the class: color, shape. Say which: --labels" in undecided.notes[0]
    for option in ("about.csv:shape", f"{tmp_path}/about.csv:3"):
        learnt = load(f"folder:{tmp_path}", "train", labels=option)
        assert learnt.classes == ("disc", "ring")
        assert numbers(learnt.labels) == [int(file.removesuffix(".png")[17:]) % 2 for file in learnt.files]
    with pytest.raises(ValueError, match="several columns.*--labels"):
        load(f"folder:{tmp_path}", "train", labels="about.csv")
    with pytest.raises(ValueError, match="no column 'size'; it has name, color, shape"):
        load(f"folder:{tmp_path}", "train", labels="about.csv:size")
    with pytest.raises(FileNotFoundError, match="no file labels.csv of labels"):
        load(f"folder:{tmp_path}", "train", labels="labels.csv")
    (tmp_path / "other.csv").write_text("a,b\nx,y\n")
    with pytest.raises(ValueError, match="names none of the images; its first row is: a, b"):
        load(f"folder:{tmp_path}", "train", labels="other.csv")


def test_two_tables_are_one_too_many(tmp_path):
    images(tmp_path / "pictures", 4)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("".join(f"pictures{i},{name[0]}{i % 2}\n" for i in range(4)))
    with pytest.raises(ValueError, match=r"a.csv and b.csv. Say which: --labels .*a.csv"):
        load(f"folder:{tmp_path}", "train")
    assert load(f"folder:{tmp_path}", "train", labels="b.csv").classes == ("b0", "b1")


def test_what_a_table_does_not_name_is_left_out_and_said(tmp_path):
    images(tmp_path / "train", 4)
    (tmp_path / "labels.csv").write_text("train0,cat\ntrain2,dog\ntrain3,\n")
    with pytest.warns(UserWarning, match="2 of 4 files"):
        learnt = load(f"folder:{tmp_path}", "train")
    assert learnt.files == ("train/train0.png", "train/train2.png")
    assert learnt.skipped == tuple(f"train{i}.png: labels.csv does not say its class" for i in (1, 3))


# --- Doubt


@pytest.mark.parametrize("names", [("train", "test", "car"), ("test", "val"), ("train deep", "extra")])
def test_what_can_be_read_in_two_ways_is_an_error_that_shows_both_and_an_option_decides(tmp_path, names):
    for name in names:
        if name.endswith(" deep"):
            split(tmp_path / name.removesuffix(" deep"), n=12)
        else:
            images(tmp_path / name, 12)
    with pytest.raises(
        ValueError, match="as the splits .*or as [23] classes.*--layout splits or --layout classes"
    ):
        load(f"folder:{tmp_path}", "train")
    names = sorted(name.removesuffix(" deep") for name in names)
    assert load(f"folder:{tmp_path}", "train", layout="classes").classes == tuple(names)
    if "train" in names:
        learnt = load(f"folder:{tmp_path}", "train", layout="splits")
        assert all(file.startswith("train/") for file in learnt.files)
        assert len(learnt.notes[0].partition("left out: ")[2]) > 0
    with pytest.raises(ValueError, match="layout must be one of auto, splits, classes"):
        load(f"folder:{tmp_path}", "train", layout="folders")


def test_two_folders_to_train_on_are_an_error(tmp_path):
    for name in ("train", "Train", "test"):
        split(tmp_path / name)
    if len(list(tmp_path.iterdir())) == 3:  # where file systems know case
        with pytest.raises(ValueError, match="several folders for training, Train, train.*--layout classes"):
            load(f"folder:{tmp_path}", "train")


def test_folders_that_others_left_beside_the_splits_are_left_out_and_said(tmp_path):
    split(tmp_path / "train")
    split(tmp_path / "test")
    images(tmp_path / "unlabeled")
    split(tmp_path / "__MACOSX" / "train")
    learnt, held = both(tmp_path)
    assert len(learnt.images) == len(held.images) == 9
    assert learnt.notes[0].endswith("left out: unlabeled.")


def test_a_test_class_without_training_images_is_an_error(tmp_path):
    split(tmp_path / "train")
    split(tmp_path / "test", ("cat", "Dog", "fox"))
    with pytest.raises(
        ValueError, match=r"2 of the classes of test/ never occur in train/, as 'Dog', 'fox'.*'dog' renamed"
    ):
        load(f"folder:{tmp_path}", "train")
    split(tmp_path / "one" / "train", ("cat",))
    split(tmp_path / "one" / "test", ("cat", "dog"))
    with pytest.raises(ValueError, match="1 of the classes of test/ never occur in train/, as 'dog'"):
        load(f"folder:{tmp_path / 'one'}", "train")


# --- Splits by name


def test_files_that_come_later_move_no_other(tmp_path):
    split(tmp_path, ("cat", "dog"), n=60)
    before = [set(part.files) for part in both(tmp_path)]
    images(tmp_path / "dog", 60)
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "aaa.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "dog" / "0.png")
    after = [set(part.files) for part in both(tmp_path)]
    assert before[0] <= after[0]
    assert before[1] <= after[1]
    assert len(after[0] | after[1]) == 122
    assert not after[0] & after[1]


def test_the_split_is_that_of_the_names_wherever_the_folder_lies(tmp_path):
    for root in (tmp_path / "here", tmp_path / "there" / "wrapped"):
        split(root, ("cat", "dog"), n=40)
    here, there = both(tmp_path / "here"), both(tmp_path / "there")
    assert [[f"wrapped/{file}" for file in part.files] for part in here] == [
        list(part.files) for part in there
    ]


def test_one_in_ten_is_held_out_and_every_class_keeps_some(tmp_path):
    names = [f"{k}/{i}.png" for k in range(50) for i in range(20)]
    out = held_out_by_name(names, [name.partition("/")[0] for name in names], every=10)
    assert 60 < sum(out) < 160
    for k in range(50):
        held = sum(out[20 * k : 20 * k + 20])
        assert 1 <= held < 20
    assert held_out_by_name(["single.png"], ["only"], every=1) == [False]


def test_kinds_of_splits_are_no_ordinary_words():
    for word in ("cats", "data", "images", "set", "trainer", "latest", "value", "devil"):
        assert kind_of(word) is None
    assert [kind_of(word) for word in ("Validation", "dataset_test", "img_train")] == ["val", None, "train"]


def test_a_table_is_read_whatever_is_between_its_cells(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for between in (",", "\t", ";", " "):
        (tmp_path / "t.txt").write_text("\n".join(between.join((f"{i}.png", f"c{i}")) for i in range(3)))
        found = labels_in(read_table(tmp_path / "t.txt"), Names.of(files, [tmp_path]))
        assert found.classes == {0: "c0", 1: "c1", 2: "c2"}
        assert found.matched == 1


def test_the_deepest_folders_can_be_the_classes_as_those_of_inaturalist(tmp_path):
    """Kingdoms that hold numbered species, two of which have one number."""
    for species in ("Birds/202", "Birds/7", "Fungi/7", "Plants/1009"):
        for i in range(30):
            file = tmp_path / "train_val2019" / species / f"{species[0]}{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    found = layout_of(tmp_path, layout="deepest")
    assert found.classes == ("1009", "202", "Birds/7", "Fungi/7")
    every = [one for part in found.splits.values() for one in part.files]
    assert len(every) == 120
    assert all(str(file.parent).endswith(f"/{name}") for name, file in every)
    assert 3 <= len(found.part("test").files) <= 30
    auto = layout_of(tmp_path)
    assert auto.classes == ("Birds", "Fungi", "Plants")
    assert "Birds holds 202, 7: --layout deepest makes such folders the classes" in auto.says


# --- As they are distributed


@pytest.mark.parametrize(
    ("train", "test"),
    [("seg_train", "seg_test"), ("train", "test1"), ("train2017", "val2017"), ("a-trn", "a-tst")],
)
def test_folders_whose_names_differ_in_the_word_of_a_split_are_splits(tmp_path, train, test):
    for name, n in ((train, 4), (test, 2)):
        split(tmp_path / name / name, n=n)
    images(tmp_path / "seg_pred" / "seg_pred", 3)
    learnt, held = both(tmp_path)
    assert (learnt.classes, len(learnt.files), len(held.files)) == (("cat", "dog", "elk"), 12, 6)
    assert learnt.notes[0].endswith("left out: seg_pred.")
    assert len(load(f"folder:{tmp_path}", test).files) == 6
    assert load(f"folder:{tmp_path}", "train", layout="classes").classes == tuple(
        sorted((train, test, "seg_pred"))
    )


def test_classes_with_the_word_of_a_split_in_their_names_stay_classes(tmp_path):
    names = ("bullet train", "steam train", "test tube")
    split(tmp_path, names, n=10)
    assert load(f"folder:{tmp_path}", "train").classes == names


def test_a_test_folder_alone_has_features_and_nothing_to_train_on(tmp_path):
    split(tmp_path / "test")
    assert len(load(f"folder:{tmp_path}", "test").files) == 9
    with pytest.raises(ValueError, match=f"none to train on.*--data folder:{tmp_path}/test"):
        load(f"folder:{tmp_path}", "train")


def test_folders_that_are_pieces_are_no_classes(tmp_path):
    for k in (1, 2):
        images(tmp_path / f"images_part_{k}", 20)
    with pytest.raises(
        ValueError, match="as 2 classes.*as one folder in 2 pieces.*--layout classes or --layout flat"
    ):
        load(f"folder:{tmp_path}", "train")
    assert load(f"folder:{tmp_path}", "train", layout="flat").labels is None
    assert len(load(f"folder:{tmp_path}", "train", layout="classes").classes) == 2
    rows = [f"images_part_{k}{i},{i},{'ab'[i % 2]}" for k in (1, 2) for i in range(20)]
    (tmp_path / "about.csv").write_text("\n".join(["id,age,dx", *rows]))
    with pytest.raises(
        ValueError, match="several columns that may be the class: age, dx. Say which: --labels"
    ):
        load(f"folder:{tmp_path}", "train")
    by_name = load(f"folder:{tmp_path}", "train", labels="about.csv:dx")
    (tmp_path / "about.csv").write_text("\n".join(["id,age,label", *rows]))
    for learnt in (by_name, load(f"folder:{tmp_path}", "train")):
        assert learnt.classes == ("a", "b")
        assert numbers(learnt.labels) == [int(file[27:-4]) % 2 for file in learnt.files]


def test_flat_says_no_class_by_folders_and_keeps_the_splits(tmp_path):
    split(tmp_path / "train", ("monday", "tuesday"), n=4)
    images(tmp_path / "train", 1)
    split(tmp_path / "test", ("monday", "sunday"), n=2)
    learnt, held = both(tmp_path, layout="flat")
    assert learnt.labels is held.labels is None
    assert (len(learnt.files), len(held.files)) == (9, 4)


@pytest.mark.filterwarnings("ignore:1 of")  # the table itself
def test_a_table_that_contradicts_the_folders_is_an_error_and_one_that_agrees_is_not(tmp_path):
    split(tmp_path, ("cat", "dog"), n=12)
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(f"{name}{i},{k}" for k, name in enumerate(("cat", "dog")) for i in range(12)))
    assert load(f"folder:{tmp_path}", "train").classes == ("cat", "dog")
    table.write_text("\n".join(f"{name}{i},{i % 3}" for name in ("cat", "dog") for i in range(12)))
    with pytest.raises(
        ValueError, match="the folders as 2 classes.*labels.csv, column 2: 0, 1, 2. Say which: --layout"
    ):
        load(f"folder:{tmp_path}", "train")
    assert load(f"folder:{tmp_path}", "train", layout="classes").classes == ("cat", "dog")
    assert load(f"folder:{tmp_path}", "train", labels="labels.csv").classes == ("0", "1", "2")


def test_the_column_of_a_test_table_is_that_with_the_training_classes(tmp_path):
    for name in ("0", "1", "10"):
        images(tmp_path / "Train" / name)
    images(tmp_path / "Test", 6)
    rows = [f"{20 + i},{i},{(0, 1, 10)[i % 3]},Test/Test{i}.png" for i in range(6)]
    (tmp_path / "Test.csv").write_text("\n".join(["Width,Roi.X1,ClassId,Path", *rows]))
    held = load(f"folder:{tmp_path}", "test")
    assert held.classes == ("0", "1", "10")
    assert numbers(held.labels) == [0, 1, 2, 0, 1, 2]
    # As of ImageNet's validation images: the class, and then boxes.
    (tmp_path / "Test.csv").write_text(
        "\n".join(f"Test{i},{(0, 1, 10)[i % 3]} 85 1 499 272" for i in range(6))
    )
    assert numbers(load(f"folder:{tmp_path}", "test").labels) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,species,is_train", lambda i: f"p{i}.png,c{i % 2},{int(i >= 6)}"),
        ("file,species,is_valid", lambda i: f"p{i}.png,c{i % 2},{i < 6}"),
        ("file,Class Name,data set", lambda i: f"p{i}.jpg,c{i % 2},{'valid' if i < 6 else 'train'}"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_says_the_splits_in_its_own_words(tmp_path, header, row, encoding):
    images(tmp_path / "p", 20)
    (tmp_path / "labels.csv").write_text("\n".join([header, *map(row, range(20))]), encoding=encoding)
    learnt, held = both(tmp_path)
    assert sorted(held.files) == sorted(f"p/p{i}.png" for i in range(6))
    assert numbers(learnt.labels) == [int(file[3:-4]) % 2 for file in learnt.files]


def test_of_a_number_and_a_name_for_the_same_classes_the_name_is_taken(tmp_path):
    images(tmp_path / "p", 12)
    table, rows = tmp_path / "labels.csv", [f"{i % 2},p{i}.png,{'cat dog'.split()[i % 2]}" for i in range(12)]
    table.write_text("\n".join(["class id,filepath,labels", *rows]))
    assert load(f"folder:{tmp_path}", "train").classes == ("cat", "dog")
    table.write_text("\n".join(["class id,filepath,labels", *rows[:-1], "0,p11.png,dog"]))
    assert (
        "several columns that may be the class: labels, class id"
        in load(f"folder:{tmp_path}", "train").notes[0]
    )


def test_what_a_table_cannot_say_is_no_class(tmp_path):
    images(tmp_path / "p", 12)
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(f"p{i}.png,a picture of {i}" for i in range(12)))
    learnt = load(f"folder:{tmp_path}", "train")
    assert learnt.labels is None
    assert "labels.csv has another word for nearly every image" in learnt.notes[0]
    table.write_text("\n".join(f"p{i % 12}.png,c{i % 5}" for i in range(24)))
    learnt = load(f"folder:{tmp_path}", "train")
    assert learnt.labels is None
    assert "gives 12 of the images several classes, as p0.png, c0 and c2" in learnt.notes[0]
    with pytest.raises(ValueError, match="gives 12 of the images several classes"):
        load(f"folder:{tmp_path}", "train", labels="labels.csv")


def test_names_are_the_same_however_their_accents_are_written(tmp_path):
    images(tmp_path / "train" / "cafe\u0301")  # as macOS writes it
    images(tmp_path / "train" / "bar")
    images(tmp_path / "test" / "caf\u00e9")
    learnt, held = both(tmp_path)
    assert learnt.classes == ("bar", "caf\u00e9")
    assert numbers(held.labels) == [1, 1, 1]


def test_of_many_small_classes_one_image_is_held_out(tmp_path):
    names = [f"{k}/{i}" for k in range(6) for i in range(2)]
    for start in range(20):
        shifted = [f"{start}{name}" for name in names]
        assert sum(held_out_by_name(shifted, [name.partition("/")[0] for name in shifted], every=10)) > 0
    assert held_out_by_name(names[::2], names[::2], every=3) == [False] * 6


def test_folders_without_an_image_are_named_and_what_systems_leave_is_no_class(tmp_path):
    split(tmp_path / "train", ("cat", "dog"))
    split(tmp_path / "test", ("cat", "dog"))
    (tmp_path / "train" / "fox").mkdir()
    images(tmp_path / "train" / "$RECYCLE.BIN")
    images(tmp_path / "train" / "@eaDir")
    learnt = load(f"folder:{tmp_path}", "train")
    assert learnt.classes == ("cat", "dog")
    assert learnt.notes[0].endswith("without an image: train/fox.")


def test_labels_may_name_a_table_of_one_split_alone(tmp_path):
    split(tmp_path / "train", ("cat", "dog"), n=4)
    images(tmp_path / "val", 4)
    (tmp_path / "gt").mkdir()
    rows = ["file,x,y_pos,what", *(f"val{i}.png,{i},{i},{'cat' if i % 2 else 'dog'}" for i in range(4))]
    (tmp_path / "gt" / "val.csv").write_text("\n".join(rows))
    learnt, held = both(tmp_path, labels="gt/val.csv")
    assert numbers(learnt.labels) == [0] * 4 + [1] * 4
    assert numbers(held.labels) == [1, 0, 1, 0]
    assert "val/: classes by gt/val.csv, column what" in learnt.notes[0]
    with pytest.raises(ValueError, match="has no column 'breed'"):
        load(f"folder:{tmp_path}", "train", labels="gt/val.csv:breed")


def test_formats_that_others_read_are_named_with_what_to_do(tmp_path):
    split(tmp_path / "train", ("cat", "dog"))
    split(tmp_path / "test", ("cat", "dog"))
    (tmp_path / "train" / "cat" / "IMG_1.HEIC").write_bytes(b"ftypheic")
    (tmp_path / "train" / "dog" / "bands.tif").write_bytes(b"II*\0 nothing")
    with pytest.warns(UserWarning, match="2 of 8 files"):
        learnt = load(f"folder:{tmp_path}", "train")
    assert learnt.skipped == (
        "cat/IMG_1.HEIC: no image in a known format (HEIC; save it as JPEG)",
        "dog/bands.tif: no image in a known format (a TIFF of several bands? save them all by numpy: --data npy:FILE)",
    )
