"""The generated pages are those of the committed records."""

import pytest

from defect_hub.benchmarks.pages import PAGES, RESULTS, measured, page, pages


def test_committed_pages_are_fresh() -> None:
    """`make tables` mends it."""
    found = pages(RESULTS)
    assert found
    for name, text in found.items():
        assert (PAGES / name).read_text(encoding="utf-8") == text, (
            f"docs/benchmarks/{name} is stale: run `make tables`"
        )


def test_a_page_without_records_says_how_to_get_them() -> None:
    text = page("spgdd-gpt", [], "Words of ours.")
    assert "Words of ours." in text
    assert text.count("Not run here: `defect-hub bench spgdd-gpt --table") == 8
    assert "| zero-shot | VisA → MVTec-AD | Image-AUC | 93.6 | 93.2 (Myriad) |" in text
    assert "| 1-shot | *paper* | SPADE |" in text  # the t-test of the paper's own row


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ({"not_run": "needs VisA in the data"}, "not run: needs VisA in the data"),
        ({"metrics": {}, "undefined": {"image_auroc": "one class"}}, "undefined: one class"),
        ({"metrics": {"image_auroc": {"mean": 0.5, "std": 0.01}}, "part": ""}, "50.0 ± 1.0"),
        (
            {"metrics": {"image_auroc": {"mean": 0.5, "std": None}}, "part": "3 of 4 images"},
            "50.0 (part: 3 of 4 images)",
        ),
    ],
)
def test_cells(cell: dict, shown: str) -> None:
    assert measured(cell, "image_auroc") == shown
