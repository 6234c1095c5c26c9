import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxcl.report import sample, visible, write_report
from jaxcl.typing import Images


def a_figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2])
    return figure


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run" / "report"
    path = write_report(
        folder,
        title="Digits & <friends>",
        summary=[("Linear probe", 93.123456), ("Steps", 20_000), ("Seconds", None), ("<b>", np.float32(0.5))],
        tables=[
            ("By <method>", ["Method", "kNN"], [["SimCLR", "91.2 ± 0.3"], ["<script>alert(1)</script>", 90]])
        ],
        figures=[("The loss falls, then stays.", a_figure()), ('"Quotes" & <tags>', a_figure())],
        notes=["One <device>."],
    )
    return path, path.read_text(encoding="utf-8")


def test_the_pictures_in_the_page_are_the_files_beside_it(report):
    path, page = report
    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^']+)'", page)]
    files = [file.read_bytes() for file in sorted(path.parent.glob("*.png"))]
    assert embedded == files
    assert len(files) == 2
    assert all(png.startswith(b"\x89PNG") for png in files)
    assert (path.parent / "figure-1-the-loss-falls-then.png").exists()


def test_the_page_needs_nothing_from_elsewhere(report):
    _, page = report
    assert not re.findall(r"(?:src|href)=['\"](?!data:)", page)
    assert "http:" not in page
    assert "https:" not in page


def test_all_text_is_escaped(report):
    _, page = report
    for raw in ("<friends>", "<script>", "<method>", "<device>", "<tags>", "<b><", '"Quotes"'):
        assert raw not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_every_tag_that_is_opened_is_closed(report):
    open_tags, alone = [], {"meta", "img", "br"}

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in alone:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Check().feed(report[1])
    assert open_tags == []


def test_numbers_are_short_and_nothing_is_a_dash(report):
    _, page = report
    for cell in ("<td>93.12</td>", "<td>20,000</td>", "<td>\N{EN DASH}</td>", "<td>0.5</td>"):
        assert cell in page


def test_a_column_of_numbers_is_set_right_also_with_its_spread(report):
    _, page = report
    assert "<td class='number'>91.2 ± 0.3</td>" in page
    assert "<td>SimCLR</td>" in page


def test_it_is_made_for_phones_and_for_dark_rooms(report):
    assert "width=device-width" in report[1]
    assert "prefers-color-scheme: dark" in report[1]


def test_the_same_report_is_written_twice_the_same(tmp_path):
    pages = [write_report(tmp_path / n, title="a", figures=[("b", a_figure())]).read_bytes() for n in "xy"]
    assert pages[0] == pages[1]


def test_only_a_title_is_needed(tmp_path):
    assert "<h1>Nothing yet</h1>" in write_report(tmp_path, title="Nothing yet").read_text()


def test_a_row_that_is_too_short_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="Row 1 of the table 'a' has 1 cells, its header has 2"):
        write_report(tmp_path / "no", title="t", tables=[("a", ["b", "c"], [[1, 2], [3]])])
    assert not (tmp_path / "no").exists()


def test_patches_are_shown_where_they_lie_and_further_channels_not_at_all():
    images = np.random.default_rng(0).random((2, 8, 12, 3))
    patches = images.reshape(2, 2, 4, 3, 4, 3).swapaxes(2, 3)  # [n, rows, columns, h, w, c]
    np.testing.assert_array_equal(visible(patches), images)
    np.testing.assert_array_equal(visible(images), images)
    assert visible(np.zeros((2, 8, 8, 13))).shape == (2, 8, 8, 1)


def test_pictures_show_all_classes_of_a_data_set_that_is_sorted_by_class():
    labels = np.repeat(np.arange(10), 50)
    images = Images("sorted", np.zeros((500, 2, 2, 1), np.uint8), labels)
    chosen = sample(images, 20, seed=3)
    assert sorted(labels[chosen]) == sorted(np.repeat(np.arange(10), 2))
    assert len(set(chosen)) == 20
    assert sample(images, 20, seed=3).tolist() == chosen.tolist()
    assert sample(images, 20, seed=4).tolist() != chosen.tolist()
    unlabelled = sample(images._replace(labels=None), 100, seed=3)
    assert unlabelled.max() > 250 > unlabelled.min()
    assert len(sample(images, 1000, seed=0)) == 500
