"""A small Space: adds up what a judge has answered. It asks no endpoint itself, so it needs nobody's API key."""

import json
from typing import Any

from defect_hub.evaluate_metrics.apps import table_app
from defect_hub.evaluate_metrics.judge import PROMPT, PROMPT_VERSION, Judgement, judge_score, parse_ratings

EXAMPLE = [
    [json.dumps({"correctness": 90, "completeness": 80, "details": 60, "interpretability": 90})],
    [json.dumps({"correctness": 40, "completeness": 20, "details": 10, "interpretability": 50})],
    ["A very good description!"],
]
ABOUT = f"""\
Show a vision model the prompt below, an image, and its description as a JSON object `{{"description": "..."}}`. Paste
the answers into the table. They are read strictly: an answer that is not as the prompt asks is unjudged, never 0.

<details><summary>The prompt, version {PROMPT_VERSION}</summary>

```text
{PROMPT}```

</details>
"""


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the judge score of the table's answers, and why some could not be read."""
    judgements = [_judgement(str(row[0])) for row in rows]
    reasons = {f"row {number}": judgement.reason for number, judgement in enumerate(judgements, 1) if judgement.reason}
    return judge_score(judgements) | {"unjudged": reasons}


def _judgement(answer: str) -> Judgement:
    try:
        return Judgement("of the pasted answers", parse_ratings(answer))
    except ValueError as error:
        return Judgement("of the pasted answers", None, str(error))


demo = table_app(
    title="Judge score",
    about=ABOUT,
    headers=["answer of the judge"],
    datatypes=["str"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
