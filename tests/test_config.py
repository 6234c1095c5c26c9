"""Configs are programs: loading them, their knobs, and what may change when a run goes on."""

import dataclasses
from pathlib import Path

import pytest

from jaxcl.config import (
    CommonKnobs,
    changed_knobs,
    knobs_from_json,
    knobs_to_json,
    load_config,
    open_data,
    resolved,
    steps_of,
)
from jaxcl.neighbors import same_program

CONFIG = """
from dataclasses import dataclass

from jaxcl import data
from jaxcl.config import CommonKnobs

@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    temperature: float = 0.5
    widths: tuple[int, ...] = (1, 2)

def recipe(knobs, about):
    return knobs
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(CONFIG)
    return path


def test_knobs_survive_json(config):
    module = load_config(config)
    knobs = module.Knobs(temperature=0.1, widths=(3,))
    assert knobs_from_json(module, knobs_to_json(knobs)) == knobs


def test_a_changed_knob_is_named_with_both_values(config):
    module = load_config(config)
    saved = dataclasses.asdict(module.Knobs()) | {"widths": [1, 2]}
    assert changed_knobs(saved, module.Knobs()) == []
    (line,) = changed_knobs(saved, module.Knobs(temperature=0.1))
    assert line.startswith("--temperature: the run has 0.5")
    assert "0.1" in line


def test_a_knob_that_is_gone_is_named(config):
    with pytest.raises(ValueError, match="no knob momentum; it has data, .*temperature, widths"):
        knobs_from_json(load_config(config), '{"momentum": 1}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Knobs = 3\ndef recipe(knobs, about): pass",
        CONFIG.replace("def recipe", "def other"),
        CONFIG.replace("Knobs(CommonKnobs)", "Knobs"),
    ],
)
def test_a_file_that_is_no_config_is_told_what_it_lacks(tmp_path, text):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=r"a frozen dataclass `Knobs\(CommonKnobs\)` and a function `recipe"):
        load_config(tmp_path / "bad.py")


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config .*nothing\.py"):
        load_config(tmp_path / "nothing.py")


def test_comments_do_not_make_another_program():
    assert same_program("x = 1  # one", "x   =   1\n")
    knobs = "class Knobs:\n    rate: float = {}\n    '{}'\n"
    assert same_program("'One.'\n" + knobs.format(1, "a"), "'Two.'\n" + knobs.format(1, "b"))
    assert not same_program(knobs.format(1, "a"), knobs.format(2, "a"))
    assert not same_program("x = 'a'", "x = 'b'")
    assert not same_program("x = 1", "x = 2")
    assert not same_program("x = 1", "x = (1")
    assert same_program("x = (1", "x = (1")


def test_steps_leave_out_the_incomplete_batch():
    assert steps_of(3, 10, 4) == 6
    assert steps_of(0.5, 10, 5) == 1
    with pytest.raises(ValueError, match="batch of 11 does not fit into 10 images"):
        steps_of(1, 10, 11)


def test_paths_among_the_knobs_become_absolute_and_nothing_else_changes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    home = Path.home()
    knobs = resolved(CommonKnobs(data="npz:some/file.npz", data_dir="sets", init="~/runs/one"))
    assert knobs == CommonKnobs(
        data=f"npz:{tmp_path}/some/file.npz", data_dir=f"{tmp_path}/sets", init=f"{home}/runs/one"
    )
    assert resolved(knobs) == knobs
    for data in ("digits", "tfds:cifar10", "tfds:imagenet_resized/32x32"):
        assert resolved(CommonKnobs(data=data)) == CommonKnobs(data=data)


def test_a_config_may_have_images_of_its_own(config):
    module = load_config(config)
    assert not callable(module.data)  # the room of that name is no function of the config
    config.write_text(CONFIG + "\n\ndef data(knobs):\n    return ('images of', knobs.batch_size)\n")
    module = load_config(config)
    assert open_data(module, module.Knobs()) == ("images of", 8)


def test_a_knob_that_a_configs_own_images_ignore_is_refused(config):
    of = "\n\ndef data(knobs):\n    return {}\n".format
    config.write_text(CONFIG + of("knobs.data, knobs.labels"))
    module = load_config(config)
    assert open_data(module, module.Knobs(labels="them.csv"))[1] == "them.csv"
    with pytest.raises(ValueError, match="does not read --train-on, --value-range. Leave it out"):
        open_data(module, module.Knobs(train_on="unlabelled", value_range=(0, 7)))
    config.write_text(CONFIG + of("print(knobs)"))  # whoever it is handed to may read all of them
    module = load_config(config)
    assert open_data(module, module.Knobs(train_on="unlabelled")) is None


def test_a_preset_is_what_the_other_options_change(config, capsys):
    from jaxcl.cli import knobs_of, main, option

    config.write_text(CONFIG + "\n\nPRESETS = {'large': Knobs(batch_size=64, epochs=5)}\n")
    knobs = knobs_of("train", config, ["--preset", "large", "--epochs", "7"])
    assert (knobs.batch_size, knobs.epochs) == (64, 7)
    assert knobs_of("train", config, []).batch_size == 8
    assert knobs_of("sweep", config, option("preset", "large", None)).batch_size == 64
    assert main(["train", str(config), "--preset", "small"]) == 1
    assert "no preset 'small'; its presets are large" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(config), "--help"])
    assert "--preset NAME sets all knobs at once: large." in " ".join(capsys.readouterr().out.split())


def test_a_sweep_s_words_are_values_of_knobs_and_options_of_every_run(config):
    from jaxcl.cli.words import grid_of, knobs_of, words_of

    words = [
        "--value-range",
        "0,4095",
        "0,255",
        "--widths=3,4",
        "--seed",
        "0..1",
        "--logger",
        "wandb",
        "mlflow",
    ]
    grid, same = grid_of(words)
    assert grid == {"value_range": ["0,4095", "0,255"], "widths": ["3,4"], "seed": ["0", "1"]}
    one = {name: values[0] for name, values in grid.items()}
    knobs = knobs_of("sweep", config, [*words_of(config, one), *same])
    assert (knobs.value_range, knobs.widths, knobs.logger) == ((0, 4095), (3, 4), ("wandb", "mlflow"))
    for words, says in (
        (["0", "--seed"], "'0' belongs to no knob"),
        (["--remat"], "--remat needs a value; one"),
    ):
        with pytest.raises(ValueError, match=says):
            grid_of(words)


def test_every_common_knob_is_explained(config, capsys):
    from jaxcl.cli import main

    with pytest.raises(SystemExit):
        main(["train", str(config), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(CommonKnobs):
        assert f"--{field.name.replace('_', '-')}" in shown
    assert "Training steps between two lines of the log. (default: 20)" in shown
    assert (
        "Images a training step, over all devices. (default: 8)" in shown
    )  # of the config, explained by the base
