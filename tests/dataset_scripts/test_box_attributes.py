"""Structured attributes of images that are annotated with boxes only."""

import numpy as np
import pytest

from defect_hub.dataset_scripts.box_attributes import box_attributes


def test_box_attributes_measure_the_union_of_the_boxes() -> None:
    gray = np.full((90, 120), 100, np.uint8)
    gray[10:20, 5:25] = 160
    boxes = np.array([[5, 10, 20, 10], [15.2, 9.6, 10, 10.4], [100, 70, 4.4, 5]])
    assert box_attributes(gray, boxes, "Bright scratch") == {
        "Defect type": "Bright scratch",
        "Shape": "unclear",
        "Direction": "none",
        "Spatial Distribution": "scattered",
        "Number of Defects": "three",
        "Position": [["top-left", round(200 / 220, 6)], ["bottom-right", round(20 / 220, 6)]],
        "Scale": "small",
        "Polarity": "bright",
        "Saliency": "high",
    }


def test_boxes_are_clipped_to_the_image_but_not_to_nothing() -> None:
    gray = np.zeros((30, 30), np.uint8)
    assert box_attributes(gray, np.array([[-5, -5, 8, 8.0]]), "Patches")["Position"] == [["top-left", 1.0]]
    thin = box_attributes(gray, np.array([[12.2, 0, 0.1, 30]]), "Patches")
    assert (thin["Spatial Distribution"], thin["Scale"]) == ("isolated", "medium")
    for outside in ([[40, 40, 5, 5]], [[-9, 0, 5, 5]], []):
        with pytest.raises(ValueError, match="no box touches the image"):
            box_attributes(gray, np.array(outside), "Patches")
