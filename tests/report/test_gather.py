"""What the page of many runs reads of their directories."""

from jaxcl.report.gather import gather


def test_two_folders_of_a_sweep_with_the_same_knobs_are_one_run(make_run, tmp_path):
    knobs = {"temperature": 0.1, "seed": 0}
    make_run(tmp_path / "temperature=0.1", knobs={**knobs, "logger": ["wandb"]})
    make_run(tmp_path / "temperature=0.1,seed=0", knobs=knobs, results={"knn": 50.0})
    make_run(tmp_path / "temperature=0.1,seed=1", knobs={**knobs, "seed": 1}, results={"knn": 51.0})
    (tmp_path / "sweep.json").write_text("[]\n")
    found = gather([tmp_path])
    assert [member.name for member in found.members] == ["temperature=0.1,seed=0", "temperature=0.1,seed=1"]
    assert found.varying == ()
    assert (
        "temperature=0.1 is left out: temperature=0.1,seed=0 holds a run with the same knobs." in found.said
    )
    # Runs of one's own beside each other, as on two devices, stay apart; so do those of another program.
    (tmp_path / "temperature=0.1" / "config.py").write_text("OTHER = 1\n")
    assert len(gather([tmp_path]).members) == 3
    (tmp_path / "temperature=0.1" / "config.py").write_text("raise SystemExit('executed')\n")
    (tmp_path / "sweep.json").unlink()
    assert len(gather([tmp_path]).members) == 3
