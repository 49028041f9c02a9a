import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from ntk_lab import Comparison, plot
from ntk_lab.compare import report
from ntk_lab.errors import InputError
from tests.plot.samples import comparison

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects what a reader would look at."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    c = comparison(widths=(8, 512), optimizer=True)
    path = c.report(tmp_path_factory.mktemp("reports") / "new" / "folder")
    return c, path, Page(path.read_text(encoding="utf-8"))


def test_everything_is_written(written):
    c, path, _ = written
    assert {p.name for p in path.parent.iterdir()} == {
        "comparison.nc", "report.html", "report.txt", "overview.png", "verdict.png", "budget.png",
        "scaling.png", "accuracy.png", "drift.png", "motion.png", "kernel.png",
    }  # fmt: skip
    assert (path.parent / "report.txt").read_text(encoding="utf-8") == f"{c}\n"
    loaded = Comparison.load(path.parent)
    np.testing.assert_array_equal(loaded.gap(), c.gap())


def test_the_page_loads_nothing_from_outside(written):
    _, path, page = written
    text = path.read_text(encoding="utf-8")
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert len(page.addresses) == 7
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe", text)
    assert "prefers-color-scheme: dark" in text


def test_the_verdict_comes_first_then_the_numbers(written):
    c, _, page = written
    badges = [attrs["class"] for tag, attrs in page.tags if tag == "li"]
    assert badges == ["badge fails", "badge predicts"]
    words = page.words
    order = ["Does kernel regression predict", "width 8", "fails", "width 512", "predicts",
             "The error budget", "Step 1,", "Step 3,", "Step 10,", "exponent", "Settings",
             "Comparison.load"]  # fmt: skip
    places = [words.index(order[0])]
    for part in order[1:]:
        places.append(words.index(part, places[-1]))
    for line in c.conclusion().splitlines():
        assert " ".join(line.split()) in words
    for cause in (*c.gaps, "total"):
        assert cause in words
    for setting in ("stability limit", "mini-batches of 8", "jax", "ntk_lab 0.", "Dense(8)"):
        assert setting in words


@pytest.fixture
def small_figures(monkeypatch):
    monkeypatch.setattr(report, "_draw", lambda *_: Figure((0.5, 0.5)))
    monkeypatch.setattr(plot, "overview", lambda _: Figure((0.5, 0.5)))


@pytest.mark.usefixtures("small_figures")
def test_what_comes_from_outside_is_escaped(tmp_path):
    c = comparison(widths=(8,), steps=(1,))
    c = replace(c, settings=c.settings | {"net": "<script>alert('net')</script>"})
    path = report.write_report(c, tmp_path / "a<b>&", command="ntk-lab <img src=x>")
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "a<b>&" not in text
    page = Page(text)
    assert "ntk-lab <img src=x>" in page.words
    assert "<script>alert('net')</script>" in page.words
    assert "a<b>&" in page.words


@pytest.mark.usefixtures("small_figures")
def test_an_unwritable_folder_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*another folder"):
        comparison(widths=(8,), steps=(1,)).report(tmp_path / "file" / "report")


def test_missing_matplotlib_is_explained_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"ntk_lab\[report\]"):
        comparison().report(tmp_path / "report")
    assert not (tmp_path / "report").exists()
