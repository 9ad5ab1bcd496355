"""How often the words of a description are right: verdict, kind (by its cause), place.

python -m defect_hub.benchmarks.description_words --model MODEL --data steelsynth --split val

Verdict over all images; kind and place over the defective images that were called defective. The kind is read off the
cause, which differs for every class; the place must equal the cell that holds most of the defect.
"""

import argparse
import re

from transformers import AutoModel, AutoProcessor

from defect_hub.evaluate_metrics.kernels.description import parse_yes_no
from defect_hub.train.data import load_split
from defect_hub.train.evaluation import evaluate_diagnosis

PLACE = re.compile(r" in the ([a-z ]+) of the ")
KIND = re.compile(r"Likely cause: (.+)$")


def found(pattern: re.Pattern[str], text: str) -> str | None:
    """What a pattern captures in a text, or None."""
    match = pattern.search(text)
    return match[1] if match else None


def word_accuracy(descriptions: list[str], answers: list[str], is_defective: list[bool]) -> dict[str, float]:
    """Shares of right verdicts, kinds and places.

    Args:
        descriptions: n generated texts.
        answers: n reference answers of the conversations.
        is_defective: n labels.
    """
    verdicts = [parse_yes_no(text) for text in descriptions]
    right = [verdict == label for verdict, label in zip(verdicts, is_defective, strict=True)]
    pairs = [
        (text, answer)
        for text, answer, verdict, label in zip(descriptions, answers, verdicts, is_defective, strict=True)
        if label and verdict
    ]
    shares = {"verdict": sum(right) / len(right)}
    for name, pattern in (("kind", KIND), ("place", PLACE)):
        comparable = [(found(pattern, text), found(pattern, answer)) for text, answer in pairs]
        known = [(said, true) for said, true in comparable if true is not None]
        if known:
            shares[name] = sum(said == true for said, true in known) / len(known)
    return shares


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--data", required=True, help="data set in the record schema")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    model = AutoModel.from_pretrained(options.model, dtype="float32")
    processor = AutoProcessor.from_pretrained(options.model)
    rows = load_split(options.data, options.split)
    rows = rows.filter(lambda value: value is not None, input_columns="is_defective")
    scores = evaluate_diagnosis(model, processor, rows)
    answers = [conversation[1]["value"] for conversation in rows["conversation"]]
    for name, value in word_accuracy(scores.descriptions, answers, list(rows["is_defective"])).items():
        print(f"{name:8s} {value:.3f}")


if __name__ == "__main__":
    main()
