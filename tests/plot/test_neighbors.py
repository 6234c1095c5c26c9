import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxcl.plot import neighbors_sheet, style

rng = np.random.default_rng(0)
QUERIES = rng.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
NEIGHBORS = rng.integers(0, 256, (2, 3, 8, 8, 1), dtype=np.uint8)
LABELS = np.array([0, 1])
THEIRS = np.array([[0, 0, 1], [0, 1, 0]])
SIMILARITIES = np.array([[0.9, 0.8, 0.7], [0.95, 0.85, 0.75]])


def a_sheet(**changes):
    arguments = {"query_labels": LABELS, "neighbor_labels": THEIRS, "similarities": SIMILARITIES} | changes
    return neighbors_sheet(QUERIES, NEIGHBORS, **arguments)


def captions(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_there_is_one_axes_for_each_query_and_each_of_its_neighbors():
    figure = a_sheet()
    assert len(figure.axes) == 2 * (1 + 3)
    np.testing.assert_array_equal(figure.axes[6].images[0].get_array(), NEIGHBORS[1, 1, ..., 0])


def test_frames_are_green_and_solid_for_the_same_class_red_and_dashed_for_another():
    figure = a_sheet()
    neighbors = [ax for i, ax in enumerate(figure.axes) if i % 4]
    for ax, same in zip(neighbors, (LABELS[:, None] == THEIRS).ravel(), strict=True):
        spine = ax.spines["left"]
        assert to_hex(spine.get_edgecolor()) == (style.SAME if same else style.OTHER)
        assert spine.get_linestyle() in (("-", "solid") if same else ("--", "dashed"))


def test_the_similarity_and_the_class_are_printed_under_each_neighbor():
    assert captions(a_sheet(classes=("cat", "dog")))[:4] == [
        "cat",
        "0.900 · cat",
        "0.800 · cat",
        "0.700 · dog",
    ]
    assert captions(a_sheet(query_labels=None, neighbor_labels=None))[1:4] == ["0.900", "0.800", "0.700"]


def test_the_note_counts_the_neighbors_of_the_same_class():
    assert a_sheet().texts[0].get_text().startswith("3 of 6 of the query's class")


def test_without_labels_nothing_is_judged(tmp_path):
    figure = neighbors_sheet(QUERIES, NEIGHBORS)
    figure.savefig(tmp_path / "a.png")
    assert not figure.texts
    assert {to_hex(ax.spines["left"].get_edgecolor()) for ax in figure.axes}.isdisjoint(
        {style.SAME, style.OTHER}
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"query_labels": [0]}, r"query_labels must have shape \(2,\)"),
        ({"neighbor_labels": LABELS}, r"neighbor_labels must have shape \(2, 3\)"),
        ({"similarities": SIMILARITIES.T}, r"similarities must have shape \(2, 3\)"),
    ],
)
def test_shapes_that_do_not_agree_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        a_sheet(**changes)


def test_other_than_one_row_of_neighbors_a_query_is_refused():
    with pytest.raises(ValueError, match="one row for each of the 2"):
        neighbors_sheet(QUERIES[:1], NEIGHBORS)


def test_files_are_named_without_their_folders():
    names = [["train/cats/1.png", "train/dogs/2.png", "3.png"]] * 2
    figure = a_sheet(query_names=["test/a.png", "test/b.png"], neighbor_names=names)
    words = " ".join(captions(figure)).split()
    assert {"a.png", "b.png", "1.png", "2.png", "3.png"} <= set(words)
    assert not any("/" in word for word in words)
