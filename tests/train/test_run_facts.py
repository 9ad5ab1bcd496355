"""What a run records survives the file, and what the weights inherit is never said to be freer than it is."""

import json
from dataclasses import replace

import pytest

from defect_hub.train.run_facts import (
    BaseModel,
    Cost,
    DataUse,
    Measurement,
    RunFacts,
    SourceRows,
    read_run,
    stages,
    weights_license,
    write_run,
)


def run_on(license="apache-2.0", redistributable=True, use="training", bases=()):
    uses = [DataUse(use, "train", [SourceRows("MT", license, redistributable, 5)], "ab" * 8)]
    return RunFacts("tadd", uses, "accelerate launch x", {"seed": 42}, base_models=list(bases))


def test_every_field_survives_the_file(tmp_path):
    first = run_on("CC BY 4.0")
    run = replace(
        run_on(bases=[BaseModel("org/stage", None, first), BaseModel("other", "mit")]),
        metrics=[Measurement("tadd", "test", 3, "few_shot", {"image_auroc": 0.5, "unparsed": 0}, "x")],
        cost=Cost(training_seconds=1.5, first_step=2, last_step=4),
        hardware="cpu",
        versions={"torch": "2"},
        date="2026-11-21",
        limits=["one"],
    )
    write_run(tmp_path, run)
    assert read_run(tmp_path) == run
    assert [name for name, _ in stages(run)] == ["this run", "org/stage"]
    assert run.uses[0].rows == 5


def test_no_file_is_no_record(tmp_path):
    assert read_run(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("command"), r"run\.json: command: missing"),
        (lambda facts: facts.update(colour=1), r"run\.json: colour: no such field"),
        (lambda facts: facts["uses"][0]["sources"][0].update(rows="5"), r'uses\[0\]\.sources\[0\]\.rows: "5" is not'),
        (lambda facts: facts.update(cost=[1]), "cost: not an object"),
        (lambda facts: facts.update(limits="one"), 'limits: "one" is not of the type list'),
        (lambda facts: facts["cost"].update(energy_kwh=True), "cost.energy_kwh: true is not of the type float"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    write_run(tmp_path, run_on())
    facts = json.loads((tmp_path / "run.json").read_text())
    change(facts)
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path)


def test_no_json_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: Expecting .* Take the file from the training run again"):
        read_run(tmp_path)


@pytest.mark.parametrize("license", ["apache-2.0", "Apache-2.0", "MIT", "CC0 1.0"])
def test_open_data_gives_open_weights(license):
    assert weights_license(run_on(license)) == "apache-2.0"


@pytest.mark.parametrize(
    "run",
    [
        None,
        run_on(None),
        run_on("not stated"),
        run_on("CC BY-NC-SA 4.0"),
        run_on("CC BY 4.0"),
        run_on("MIT by the LICENSE file; the README restricts the data to research"),
        run_on(redistributable=False),
        run_on(redistributable=None),
        run_on("CC BY-NC-SA 4.0", use="calibration"),
        run_on(bases=[BaseModel("base", None)]),
        run_on(bases=[BaseModel("base", "llama2")]),
        run_on(bases=[BaseModel("base", "apache-2.0", run_on("not stated"))]),
        run_on(bases=[BaseModel("a", "mit", run_on(bases=[BaseModel("b", "mit", run_on("CC BY-NC-SA 4.0"))]))]),
    ],
)
def test_anything_else_is_inherited(run):
    assert weights_license(run) is None


def test_images_of_the_table_alone_do_not_bind_the_weights():
    run = run_on()
    other = run_on("CC BY-NC-SA 4.0", use="evaluation")
    assert weights_license(replace(run, uses=run.uses + other.uses)) == "apache-2.0"
