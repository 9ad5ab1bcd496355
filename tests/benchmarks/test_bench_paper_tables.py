"""The figures of the papers: complete, and what can be computed from them."""

import pytest

from defect_hub.benchmarks.paper_tables import METRICS, compare, load_paper, paper_names, percent
from defect_hub.dataset_scripts.tadd.subsets import load_subsets
from defect_hub.modeling.configuration_spgdd_gpt import SpgddGptConfig
from defect_hub.train.evaluation import DESCRIPTION_METRICS


@pytest.fixture(scope="module")
def paper():  # type: ignore[no-untyped-def]
    return load_paper("spgdd-gpt")


def test_all_eight_tables_are_there(paper) -> None:  # type: ignore[no-untyped-def]
    assert list(paper.tables) == list(range(1, 9))
    assert paper_names() == ["spgdd-gpt"]
    for table in paper.tables.values():
        assert set(table.metrics) <= set(METRICS)
        for row in table.rows.values():
            assert paper.ours in row.paper
            assert row.variant in paper.variants
            values = [value for figures in row.paper.values() for value in figures if value is not None]
            assert all(40 < value < 100 for value in values)
    assert METRICS["Acc."] in DESCRIPTION_METRICS.values()


def test_subsets_are_those_of_tadd(paper) -> None:  # type: ignore[no-untyped-def]
    assert sorted(data.source for data in paper.tables[2].data) == sorted(load_subsets())


def test_tables_agree_where_they_show_the_same_model(paper) -> None:  # type: ignore[no-untyped-def]
    """The full model at 1 shot stands in Tables II to VIII; II and III have one metric of it each."""
    full = [row.paper[paper.ours] for number in range(4, 9) for row in [paper.tables[number].rows[NAMES[number]]]]
    assert all(figures == full[0] for figures in full)
    places = {data.name: place for place, data in enumerate(paper.tables[2].data)}
    shown = [paper.tables[2].figure("1-shot", paper.ours, places[name], 0)[0] for name in ("MVTec-AD", "VisA")]
    assert shown == [full[0][1], full[0][4]]
    assert paper.tables[3].rows["1-shot"].paper[paper.ours] == [full[0][2], full[0][5]]
    # "the model that has not been fine-tuned produced the same Image-AUC and Pixel-AUC values" as with LoRA
    lora, without = (paper.tables[8].rows["LoRA"], paper.tables[6].rows["w/o Adapter"])
    for place in (0, 1, 3, 4):
        assert lora.paper[paper.ours][place] == without.paper[paper.ours][place]


NAMES = {4: "w/ TDDF", 5: "w/ MSSPMM", 6: "w/ Adapter", 7: "Enhanced VV-CLIP", 8: "Adapter"}


def test_gains_over_the_second_best_are_those_of_the_text(paper) -> None:  # type: ignore[no-untyped-def]
    """Section VI-A: descriptions gain 2.7, 3.6, 3.4 points on MVTec-AD, and 0.1, 0.6, 0.6 on VisA."""
    table = paper.tables[3]
    for row, gains in {"1-shot": (2.7, 0.1), "2-shot": (3.6, 0.6), "4-shot": (3.4, 0.6)}.items():
        for place, gain in enumerate(gains):
            figure, _ = table.figure(row, paper.ours, place, 0)
            assert figure - table.best_other(row, paper.ours, place, 0)[1] == pytest.approx(gain)


def test_gains_of_the_memory_are_those_of_the_text(paper) -> None:  # type: ignore[no-untyped-def]
    """Section VI-C: 2.6, 2.5, 1.1 points on MVTec-AD and 2.4, 3.3, 1.8 on VisA."""
    rows = paper.tables[5].rows
    pairs = zip(rows["w/ MSSPMM"].paper[paper.ours], rows["w/o MSSPMM"].paper[paper.ours], strict=True)
    assert [with_memory - without for with_memory, without in pairs] == pytest.approx([2.6, 2.5, 1.1, 2.4, 3.3, 1.8])


def test_variants_are_fields_of_the_configuration(paper) -> None:  # type: ignore[no-untyped-def]
    for options in (paper.variants | paper.checks).values():
        SpgddGptConfig(**options.get("model_config", {}), **options.get("evaluate", {}))


def test_paired_t_test(paper) -> None:  # type: ignore[no-untyped-def]
    """By hand: gains 1, 2, 3 have mean 2 and standard error 1/sqrt(3), so t = 3.4641 and p = 0.0742 with 2 degrees."""
    table = paper.tables[2]
    base = {data.name: table.figure("1-shot", "SPADE", place, 0)[0] for place, data in enumerate(table.data)}
    ours = {name: base[name] + gain for name, gain in (("Aitex", 1), ("CFD", 2), ("VisA", 3))}
    found = next(item for item in compare(table, "1-shot", ours) if item.against == "SPADE")
    assert (found.gain, found.pairs) == (pytest.approx(2), 3)
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert list(compare(table, "1-shot", {"CFD": 90.0})) == []


def test_unknown_paper_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing: no such model"):
        load_paper("nothing")


def test_percent_shows_a_deviation_only_where_there_is_one() -> None:
    assert [percent(None), percent(93.26), percent(93.26, 1.04)] == ["-", "93.3", "93.3 ± 1.0"]
