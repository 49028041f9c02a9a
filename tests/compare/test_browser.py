"""The HTML report in a real browser: no console message, every figure drawn, nothing too wide."""

import json
import re
import shutil
import subprocess

import jax
import pytest

import ntk_lab as ntk
from tests.compare.test_model import classes, draw, model
from tests.plot.samples import comparison

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium or Chrome on this machine; .ci/run installs one"
)
# Put into a copy of the page: what a reader would see, written where --dump-dom shows it.
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images].map(i => [i.alt, i.complete, i.naturalWidth, i.width]);
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify({images, wide: document.documentElement.scrollWidth,
    screen: innerWidth, text: document.body.innerText.length});
  document.body.append(out);
});</script></body>"""


def opened(page, width):
    """What the probe saw, and what the console said."""
    copy = page.with_name("probed.html")
    copy.write_text(page.read_text("utf-8").replace("</body>", PROBE), "utf-8")
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},900",
            "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    c = ntk.compare_model(model, draw(jax.random.key(0)), *classes(), steps=20)
    made = {"pair": comparison(widths=(8, 512), optimizer=True), "model": c}
    return {name: one.report(tmp_path_factory.mktemp(name)) for name, one in made.items()}


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1400])
@pytest.mark.parametrize("name", ["pair", "model"])
def test_a_report_reads_well_in_a_browser(pages, name, width):
    seen, console = opened(pages[name], width)
    assert console == []
    assert len(seen["images"]) == (7 if name == "pair" else 6)
    for alt, complete, natural, shown in seen["images"]:
        assert complete, alt
        assert natural >= 500, alt
        assert shown >= 300, alt
    assert seen["wide"] <= seen["screen"]  # tables scroll inside their own box
    assert seen["text"] > 2000
