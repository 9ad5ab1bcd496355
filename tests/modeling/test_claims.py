import pytest

from defect_hub.modeling.claims import box_cell, cell_name, unsupported_claims

SIDE = 90
TOP_LEFT = {"box": [5, 5, 10, 10]}
BOTTOM_RIGHT = {"box": [70, 70, 10, 10]}
WIDE = {"box": [0, 40, 90, 5]}


def claims(text: str, *regions: dict, is_defective: bool = True) -> list[str]:
    return unsupported_claims(text, list(regions), is_defective, SIDE, SIDE)


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("Yes, there is a small dark scratch in the top left of the steel surface.", [TOP_LEFT]),
        ("Yes, there are two tiny pits in the bottom right of the steel surface.", [TOP_LEFT, BOTTOM_RIGHT]),
        ("Yes, there are several pits in the upper-left.", [TOP_LEFT]),
        ("Yes, there is a crease in the middle left.", [WIDE]),
        ("Yes, there is a crease in the center.", [WIDE]),
        ("Yes, there is a crease in the middle right.", [WIDE]),
        ("Ja, ein Kratzer.", [TOP_LEFT]),
    ],
)
def test_what_the_map_supports_is_not_listed(text: str, regions: list[dict]) -> None:
    assert claims(text, *regions) == []


@pytest.mark.parametrize(
    ("text", "regions", "expected"),
    [
        ("Yes, there is a pit in the top right.", [TOP_LEFT], ['position "top right": no region there']),
        ("Yes, there is a pit in the lower-left.", [TOP_LEFT], ['position "lower-left": no region there']),
        ("Yes, there is a pit in the center of the tile.", [BOTTOM_RIGHT], ['position "center": no region there']),
        ("Yes, there are three pits in the top left.", [TOP_LEFT], ['count "three": the map shows 1']),
        (
            "Yes, there are two pits in the top center.",
            [BOTTOM_RIGHT],
            ['position "top center": no region there', 'count "two": the map shows 1'],
        ),
        ("No, the steel surface shows no defect.", [TOP_LEFT], ['presence "no": the map shows a defect']),
    ],
)
def test_what_the_map_does_not_support_is_listed(text: str, regions: list[dict], expected: list[str]) -> None:
    assert claims(text, *regions) == expected


def test_a_defect_claimed_on_a_normal_image() -> None:
    text = "Yes, there are two pits in the top left."
    assert claims(text, is_defective=False) == ['presence "yes": the map shows no defect']
    assert claims("No, the steel surface shows no defect.", is_defective=False) == []


def test_cells_of_the_grid() -> None:
    assert [cell_name(row, column) for row in range(3) for column in range(3)] == [
        "top-left",
        "top-center",
        "top-right",
        "middle-left",
        "center",
        "middle-right",
        "bottom-left",
        "bottom-center",
        "bottom-right",
    ]
    assert box_cell([0, 0, 1, 1], 300, 30) == "top-left"
    assert box_cell([28, 298, 2, 2], 300, 30) == "bottom-right"
    assert box_cell([0, 0, 30, 300], 300, 30) == "center"
