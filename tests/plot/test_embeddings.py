import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxcl.plot import embedding_map
from jaxcl.plot.embeddings import class_colors, principal_components

rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(60, 6)) * [5, 3, 1, 1, 1, 1]
LABELS = np.repeat([0, 1, 2], 20)


def points_of(figure):
    return np.asarray(figure.axes[0].collections[0].get_offsets())


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_image_is_a_point_and_every_class_is_in_the_legend():
    figure = embedding_map(FEATURES, LABELS, method="pca", classes=("cat", "dog", "a $hip"))
    assert points_of(figure).shape == (60, 2)
    assert legend_of(figure) == ["cat", "dog", "a $hip"]


def test_points_of_a_class_have_one_color_and_two_classes_never_the_same():
    offset = np.repeat(np.eye(3) * 100, 20, axis=0)
    figure = embedding_map(np.hstack([FEATURES, offset]), LABELS, method="pca")
    dots = figure.axes[0].collections[0]
    groups = {}
    for point, color in zip(points_of(figure), dots.get_facecolors(), strict=True):
        groups.setdefault(to_hex(color), []).append(point)
    assert sorted(map(len, groups.values())) == [20, 20, 20]
    # The three classes lie far apart, so one color means one position.
    assert all(np.ptp(np.array(group), axis=0).max() < 60 for group in groups.values())


def test_without_labels_there_is_a_map_and_no_legend(tmp_path):
    figure = embedding_map(FEATURES, None, method="pca")
    figure.savefig(tmp_path / "a.png")
    assert not figure.legends


def test_unlabeled_images_are_named_so_and_come_last():
    assert legend_of(embedding_map(FEATURES, LABELS - 1, method="pca")) == ["0", "1", "unlabeled"]


@pytest.mark.parametrize("classes", [20, 21, 45])
def test_of_more_than_twenty_classes_the_names_stand_among_their_points(classes, tmp_path):
    labels = np.arange(60) % classes
    names = [f"a $ name of class {i}" for i in range(45)]
    figure = embedding_map(FEATURES, labels, method="pca", classes=names)
    figure.savefig(tmp_path / "a.png")
    written = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert bool(figure.legends) == (classes <= 20)
    assert set(written) == (set() if classes <= 20 else set(names[:classes]))
    points = points_of(figure)
    if written:
        x, y = written[names[0]]
        assert points[:, 0].min() < x < points[:, 0].max()
        assert points[:, 1].min() < y < points[:, 1].max()
    boxes = [text.get_window_extent().shrunk(0.98, 0.9) for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
    assert len({to_hex(color) for color in class_colors(classes)}) == classes


def test_of_more_than_two_thousand_images_two_thousand_are_drawn_and_the_title_says_so():
    figure = embedding_map(rng.normal(size=(2100, 3)), np.arange(2100) % 3, method="pca")
    assert len(points_of(figure)) == 2000
    assert figure.axes[0].get_title(loc="left") == "Principal components of 2,000 of 2,100 images"


def test_principal_components_are_those_of_scikit_learn_up_to_sign():
    sklearn = pytest.importorskip("sklearn.decomposition", reason="compares with scikit-learn's PCA")
    points, fractions = principal_components(FEATURES, 2)
    pca = sklearn.PCA(2).fit(FEATURES)
    np.testing.assert_allclose(np.abs(points), np.abs(pca.transform(FEATURES)), atol=1e-9)
    np.testing.assert_allclose(fractions, pca.explained_variance_ratio_)


def test_negating_nothing_but_the_order_of_rows_does_not_flip_the_map():
    order = rng.permutation(60)
    np.testing.assert_allclose(
        principal_components(FEATURES[order], 2)[0], principal_components(FEATURES, 2)[0][order]
    )


def test_tsne_keeps_separate_groups_apart_and_the_same_seed_gives_the_same_map():
    pytest.importorskip("sklearn", reason="t-SNE is scikit-learn's")
    groups = FEATURES + 50 * np.eye(6)[LABELS]
    first, again = (points_of(embedding_map(groups, LABELS, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    order = np.random.default_rng(3).permutation(60)
    distance = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1e9 * np.eye(60)
    assert (LABELS[order][distance.argmin(axis=1)] == LABELS[order]).all()


@pytest.mark.parametrize(
    ("features", "labels", "method", "says"),
    [
        (FEATURES[:3], None, "pca", "n at least 4"),
        (FEATURES[None], None, "pca", "got shape"),
        (np.where(FEATURES > 12, np.nan, FEATURES), None, "pca", "rows of features are not finite"),
        (np.ones((60, 4)) + 1e-8, None, "tsne", "All 60 rows of features are alike"),
        (np.zeros((60, 4)), LABELS, "tsne", "the representation has collapsed"),
        (FEATURES, LABELS[:5], "pca", "labels must have one row for each of the 60"),
        (FEATURES, LABELS, "umap", '"tsne" or "pca"'),
    ],
)
def test_what_cannot_be_mapped_is_refused(features, labels, method, says):
    with pytest.raises(ValueError, match=says):
        embedding_map(features, labels, method=method)


def test_rows_of_few_kinds_are_mapped_all_the_same():
    rows = np.repeat(np.eye(3, 8, dtype=np.float32), 20, axis=0)
    embedding_map(rows, LABELS)
