"""The endpoint answers in JSON what the model and its processor say, and refuses what is no image or parameter."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from defect_hub import EMBEDDED_CHECKPOINT
from defect_hub.modeling.handler import EndpointHandler
from defect_hub.publishing.model import stage_model
from tests.modeling.test_remote_code import BLOCK, run_fresh
from tests.publishing.test_model import write_staged

# As Inference Endpoints start it: handler.py by its path, the repository's folder on sys.path. argv: folder with the
# repository "model" and "request.json"; the answer is written beside them.
SERVE = (
    BLOCK
    + """
import importlib.util, json
from pathlib import Path

folder = Path(sys.argv[1])
repository = str(folder / "model")
spec = importlib.util.spec_from_file_location("handler", f"{repository}/handler.py")
sys.path.insert(0, repository)
module = sys.modules["handler"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
answer = module.EndpointHandler(repository)(json.loads((folder / "request.json").read_text()))
(folder / "answer.json").write_text(json.dumps(answer))
print("served")
"""
)


@pytest.fixture(scope="module")
def handler(tiny_checkpoint):
    return EndpointHandler(str(tiny_checkpoint))


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> str:
    file = io.BytesIO()
    image.save(file, format=file_format, **options)
    return base64.b64encode(file.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture
def request_of(images):
    """A request of the second image with these parameters."""
    return lambda **parameters: {"inputs": encoded(images[1]), "parameters": parameters}


def record_of(model, processor, image, **options):
    """What the model says without the endpoint."""
    outputs = model.diagnose(**processor(images=image, **options), max_new_tokens=6)
    return processor.post_process_diagnosis(outputs, images=[image], object_names=options["object_names"])[0]


@pytest.mark.parametrize("references", [0, 2])
def test_answer_is_the_record_as_json(handler, model, processor, images, request_of, references):
    given = images[2 : 2 + references] or None
    options = {"text": "Any scratch?", "object_names": "magnetic tile", "reference_images": given}
    expected = record_of(model, processor, images[1], **options)
    answer = handler(
        request_of(
            question="Any scratch?",
            object_name="magnetic tile",
            reference_images=given and [encoded(image) for image in given],
            max_new_tokens=6,
            threshold=None,
        )
    )
    assert json.loads(json.dumps(answer)) == answer
    assert (answer.pop("width"), answer.pop("height")) == images[1].size
    levels, mask = decoded(answer.pop("anomaly_map")), decoded(answer.pop("mask"))
    assert np.abs(levels / 255 - expected.pop("anomaly_map")).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(mask, expected.pop("mask"))
    assert answer == expected
    assert answer["description"]


def test_parameters_reach_model_and_processor(handler, request_of):
    silent = handler(request_of(describe=False, threshold=1.0))
    assert (silent["is_defective"], silent["threshold"]) == (False, 1.0)
    assert silent["description"] == "No, the steel surface shows no defect."
    assert silent["text_source"] == "template"
    assert not decoded(silent["mask"]).any()
    full = handler(request_of(describe=False, threshold=0, pixel_threshold=0))
    assert decoded(full["mask"]).all()
    assert [region["box"] for region in full["regions"]] == [[0, 0, full["width"], full["height"]]]
    assert (full["attributes"]["scale"], full["attributes"]["scale_ratio"]) == ("extensive", 1.0)
    assert full["attributes"]["polarity"] == "neutral"


def test_few_shot_without_a_reference_is_refused(handler, request_of):
    with pytest.raises(ValueError, match="reference_images: an empty list"):
        handler(request_of(reference_images=[]))


def test_every_way_to_send_an_image(handler, images):
    plain = handler({"inputs": images[0]})
    file = base64.b64decode(encoded(images[0]))
    lines = base64.encodebytes(file).decode()  # as the command base64 writes it
    assert [handler({"inputs": value}) for value in (file, bytearray(file), lines)] == [plain] * 3
    assert handler({"inputs": images[0], "parameters": {}}) == plain


def test_deep_gray_and_turned_images(handler, images):
    gray = images[0].convert("L")
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    assert handler({"inputs": encoded(deep)})["score"] == handler({"inputs": gray})["score"]
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera stood on its side
    answer = handler({"inputs": encoded(gray, exif=turned)})
    assert (answer["width"], answer["height"]) == (gray.height, gray.width)
    assert decoded(answer["mask"]).shape == (gray.width, gray.height)


def test_without_a_path_it_serves_the_folder_it_lies_in():
    with pytest.raises((OSError, ValueError), match="modeling"):  # the package's folder holds no checkpoint
        EndpointHandler()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs: must be the base64 of an image file, is NoneType"),
        (["x"], "inputs: must be the base64 of an image file, is list"),
        ("https://example.org/image.png", "inputs: no base64; file names and URLs are not opened"),
        ("data:image/png;base64,AAAA", "inputs: no base64"),
        (str(EMBEDDED_CHECKPOINT / "config.json"), "inputs: no base64"),
        ("etc/passwd+1", "inputs: no image; send the base64 of a BMP, JPEG, PNG, TIFF, WEBP file"),
        ("", "inputs: no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "inputs: no image"),
        (base64.b64decode(encoded(Image.effect_noise((64, 64), 50)))[:1500], "inputs: broken image file"),
        (encoded(Image.new("1", (8000, 7000))), "inputs: 8000x7000 px; the images of a request may have"),
        (encoded(Image.new("L", (4, 4))), "image is 4x4 px; at least 8x8 px are needed"),
    ],
)
def test_what_is_no_image_is_refused(handler, inputs, message):
    with pytest.raises(ValueError, match=message):
        handler({"inputs": inputs})


def test_the_images_of_a_request_have_a_bound_together(handler):
    large = encoded(Image.new("1", (5000, 4500)))
    parameters = {"reference_images": [large, large]}
    with pytest.raises(ValueError, match=r"reference_images\[1\]: 5000x4500 px; .* 50000000 pixels together"):
        handler({"inputs": large, "parameters": parameters})


def test_no_file_is_opened_for_a_stranger(handler, images, tmp_path, monkeypatch):
    """Even where the name of a file is valid base64."""
    monkeypatch.chdir(tmp_path)
    images[0].save("abcd", format="PNG")
    with pytest.raises(ValueError, match="no image"):
        handler({"inputs": "abcd"})
    with pytest.raises(ValueError, match=r"reference_images\[1\]: no image"):
        handler({"inputs": images[0], "parameters": {"reference_images": [encoded(images[1]), "abcd"]}})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], "parameters: must be a JSON object"),
        ({"treshold": 0.5}, "unknown name 'treshold'; known are reference_images, "),
        ({"threshold": 1.5}, "threshold: must be a number from 0 to 1"),
        ({"threshold": float("nan")}, "threshold: must be a number from 0 to 1"),
        ({"pixel_threshold": "0.5"}, "pixel_threshold: must be a number"),
        ({"threshold": True}, "threshold: must be a number"),
        ({"describe": 1}, "describe: must be true or false"),
        ({"max_new_tokens": 0}, "max_new_tokens: must be a whole number from 1 to 1024"),
        ({"max_new_tokens": 10**9}, "max_new_tokens: must be a whole number"),
        ({"max_new_tokens": 4.0}, "max_new_tokens: must be a whole number"),
        ({"question": 3}, "question: must be text"),
        ({"question": "Why? " * 401}, "question: must be text of at most 2000 characters"),
        ({"object_name": ["a"]}, "object_name: must be text"),
        ({"reference_images": "abcd"}, "reference_images: must be a list of at most 16 images"),
        ({"reference_images": ["abcd"] * 17}, "reference_images: must be a list of at most 16 images"),
    ],
)
def test_wrong_parameters_are_refused(handler, images, parameters, message):
    with pytest.raises(ValueError, match=message):
        handler({"inputs": images[0], "parameters": parameters})


def test_request_must_be_an_object(handler):
    with pytest.raises(ValueError, match="the request must be a JSON object"):
        handler("abcd")


@pytest.mark.slow
def test_repository_serves_itself_without_the_package(images, tmp_path):
    write_staged(stage_model(EMBEDDED_CHECKPOINT, "org/tiny", tmp_path / "staging"), tmp_path / "model")
    request = {"inputs": encoded(images[0]), "parameters": {"reference_images": [encoded(images[1])]}}
    (tmp_path / "request.json").write_text(json.dumps(request))
    assert run_fresh(SERVE, tmp_path) == "served"
    expected = EndpointHandler(str(EMBEDDED_CHECKPOINT))(request)
    assert json.loads((tmp_path / "answer.json").read_text()) == expected
