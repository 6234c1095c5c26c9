"""Run directories as a sweep leaves them, made by hand: nothing is trained."""

import json
from html.parser import HTMLParser

import pytest

STARTED = 1_700_000_000.0


def write_run(folder, *, knobs, results=None, steps=20, untrained=None, saved=True, histogram=None, **record):
    """A run directory: `results` is {protocol: accuracy}."""
    folder.mkdir(parents=True)
    everything = {"data": "digits", "epochs": 2, "batch_size": 8, "size": 16, "seed": 0} | knobs
    (folder / "knobs.json").write_text(json.dumps(everything))
    about = {"count": 80, "shape": [16, 16, 3], "classes": ["a", "b"]}
    record = {
        "config": "mine.py",
        "command": ["jaxcl", "sweep", "mine.py"],
        "about": about,
        "device": "1 x cpu",
        "versions": {"jaxcl": "0.1.0", "jax": "0.12.0"},
    } | record
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.py").write_text("raise SystemExit('executed')\n")
    with open(folder / "metrics.jsonl", "w") as log:
        for step in range(1, steps + 1):
            line = {"step": step, "time": STARTED + 3 * step, "epoch": step / 10, "loss": 5.0 / step}
            line |= {"images_per_second": 800.0, "grad_norm": 1.0}
            if histogram is not None:
                line |= {"positive_histogram": histogram, "negative_histogram": histogram[::-1]}
            log.write(json.dumps(line) + "\n")
    if saved:
        (folder / "checkpoints" / str(steps)).mkdir(parents=True)
        (folder / "checkpoints" / str(steps) / "manifest.json").write_text("{}")
    (folder / "evaluations").mkdir()
    for protocol, accuracy in (results or {}).items():
        rows = [{"encoder": folder.name, "step": steps, "protocol": protocol, "accuracy": accuracy}]
        if untrained is not None:
            rows.insert(0, {**rows[0], "encoder": "untrained encoder", "accuracy": untrained})
        (folder / "evaluations" / f"{protocol}.json").write_text(json.dumps(rows))
    return folder


class Read(HTMLParser):
    """A page's tables by their captions, its attributes, scripts and text."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.attributes, self.scripts, self.words = {}, [], [], ""
        self._caption = self._cell = self._script = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag == "table":
            self._rows = self.tables.setdefault(named.get("aria-label", "summary"), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = ""
        elif tag == "script":
            self._script = ""
            self._kind = named.get("type", "program")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell)
            self._cell = None
        elif tag == "script":
            self.scripts.append((self._kind, self._script))
            self._script = None

    def handle_data(self, data):
        if self._script is not None:
            self._script += data
        elif self._cell is not None:
            self._cell += data
        else:
            self.words += data


@pytest.fixture(scope="session")
def make_run():
    return write_run


@pytest.fixture(scope="session")
def read():
    return lambda path: Read(path.read_text(encoding="utf-8"))
