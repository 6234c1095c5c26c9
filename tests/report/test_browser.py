"""Pages in a browser without a window: on a phone nothing is cut and nothing but a table scrolls sideways, panels
answer, and what is printed is the drawn pictures. Slow tests, skipped where there is no Chromium (JAXCL_BROWSER names
one)."""

import json
import os
import re
import shutil
import subprocess
from html import unescape

import pytest

from jaxcl.report import report_runs

pytestmark = pytest.mark.slow

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")

# The pages are shown in frames of several widths, and looked into from outside: their own policy forbids other scripts.
LOOK = """<!doctype html><meta charset="utf-8"><body><script>
const PAGES = %s;
const frame_drawn = () => new Promise((done) => requestAnimationFrame(done));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
// Time is the browser's own and runs ahead of a slow machine, so what is waited for is a thing and a drawn frame.
async function until(what) {
  for (let i = 0; i < 300 && !what(); i++) { await frame_drawn(); await sleep(100); }
  return what();
}
async function drawn(figure) {
  await until(() => { figure.scrollIntoView(); return figure.querySelector(".main-svg"); });
  return until(() => figure.querySelector(".live").data);
}
async function look([path, width]) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.src = path;
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; });
  const page = frame.contentDocument, within = frame.contentWindow;
  const found = { path, width, scrolls: page.documentElement.scrollWidth };
  found.outside = [...page.querySelectorAll("main *")]
    .filter((one) => !one.closest(".scroll, .live") && one.getBoundingClientRect().right > width + 1)
    .map((one) => one.tagName + "." + one.className).slice(0, 5);
  found.loaded = within.performance.getEntriesByType("resource")
    .map((one) => one.name).filter((name) => !name.startsWith("data:"));
  const first = page.querySelector(".panels[data-choose] figure");
  if (first && within.Plotly) {
    await drawn(first);
    const place = first.querySelector(".live");
    found.live = first.classList.contains("is-live");
    const of_seed = (words) => words.includes("seed=1");
    const dots = place.data.findIndex((one) => Array.isArray(one.text) && one.text.some(of_seed));
    within.Plotly.Fx.hover(place, [{ curveNumber: dots, pointNumber: 1 }]);
    await until(() => place.querySelector(".hoverlayer").textContent);
    found.hover = place.querySelector(".hoverlayer").textContent;
    found.still = within.getComputedStyle(first.querySelector(".still")).display;
    const select = page.querySelector("select");
    select.value = "1";
    select.dispatchEvent(new within.Event("change"));
    found.shown = [...first.parentElement.children].map((one) => within.getComputedStyle(one).display);
  }
  const legend = page.querySelector("ul.legend");
  if (legend && within.Plotly) {
    const loss = legend.nextElementSibling.querySelector("figure");
    await drawn(loss);
    const visible = () => loss.querySelector(".live").data.filter((one) => one.visible).length;
    found.lines = [visible()];
    for (const count of [3, 12]) {
      legend.children[1].click();
      await until(() => visible() === count);
      found.lines.push(visible());
    }
  }
  const table = page.querySelector("table[aria-label='Every run']");
  if (table) {
    const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "knn");
    const cells = () => [...table.tBodies[0].rows].filter((row) => !row.hidden)
      .map((row) => row.cells[column].textContent);
    const head = table.tHead.rows[0].cells[column];
    head.click();
    found.up = cells();
    head.click();
    found.down = cells();
    const input = table.closest(".scroll").previousElementSibling.querySelector("input");
    found.filtered = ["nt_xent", "nt_xent stopped"].map((words) => {
      input.value = words;
      input.dispatchEvent(new within.Event("input"));
      return cells().length;
    });
  }
  frame.remove();
  return found;
}
(async () => {
  const found = [];
  for (const page of PAGES) {
    try { found.push(await look(page)); } catch (error) { found.push({ error: String(error.stack || error) }); }
  }
  const written = document.createElement("pre");
  written.id = "found";
  written.textContent = JSON.stringify(found);
  document.body.replaceChildren(written);
})();
</script></body>"""


def browser():
    wanted = os.environ.get("JAXCL_BROWSER")
    found = [wanted] if wanted else [path for name in NAMES if (path := shutil.which(name))]
    return found[0] if found else None


def asked(folder, *words):
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=86400000",
        "--window-size=1300,1000",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=True).stdout


@pytest.fixture(scope="module")
def seen(tmp_path_factory, make_run):
    if browser() is None:
        pytest.skip("there is no Chromium on the path; JAXCL_BROWSER names one")
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("pages")
    long = "a_loss_of_a_very_long_name_" * 4
    for temperature in ("0.1", "1.0"):
        for loss in ("nt_xent", long):
            for seed in range(3):
                make_run(
                    folder / "sweep" / f"temperature={temperature},loss={loss},seed={seed}",
                    knobs={
                        "temperature": float(temperature),
                        "loss": loss,
                        "seed": seed,
                        "data": "folder:/" + "x" * 200,
                    },
                    results=dict.fromkeys(
                        ("knn", "linear", "fewshot5", "transfer", "mlp", "finetune"), 9.5 + 40 * seed
                    ),
                    histogram=[0.25, 0.5, 0.25],
                )
    report_runs([folder / "sweep"], out=folder / "many.html", interactive=True)
    report_runs([next((folder / "sweep").iterdir())], out=folder / "one.html", interactive=False)
    pages = [(name, width) for name in ("many.html", "one.html") for width in (360, 1200)]
    (folder / "look.html").write_text(LOOK % json.dumps(pages))
    dom = asked(folder, "--dump-dom", (folder / "look.html").as_uri())
    found = json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert not [one["error"] for one in found if "error" in one]
    return {(one["path"], one["width"]): one for one in found}


def test_on_a_phone_nothing_is_cut_and_the_page_does_not_scroll_sideways(seen):
    assert len(seen) == 4
    for (_, width), one in seen.items():
        assert one["scrolls"] <= width
        assert one["outside"] == []


def test_nothing_is_loaded(seen):
    assert [one["loaded"] for one in seen.values()] == [[]] * 4


def test_a_panel_that_is_pointed_at_names_the_run(seen):
    for width in (360, 1200):
        one = seen["many.html", width]
        assert one["live"]
        assert one["still"] == "none"
        assert one["hover"].startswith("temperature=0.1,")
        assert one["hover"].endswith(",seed=1: 49.5")


def test_one_panel_of_many_is_chosen(seen):
    shown = seen["many.html", 360]["shown"]
    assert shown[0] == "none" != shown[1]
    assert set(shown[2:]) == {"none"}


def test_one_setting_of_many_is_shown_alone_and_then_all_again(seen):
    assert seen["many.html", 1200]["lines"] == [12, 3, 12]


def test_tables_are_sorted_as_numbers_and_filtered_by_words(seen):
    one = seen["many.html", 1200]
    assert one["up"] == ["9.5"] * 4 + ["49.5"] * 4 + ["89.5"] * 4
    assert one["down"] == one["up"][::-1]
    assert one["filtered"] == [6, 0]  # all are done
