"""The finished folder of a prediction: tables, card and record."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import yaml
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from defect_hub.train.prediction.record import prediction_features
from defect_hub.train.prediction.request import RESULT_FILE, PredictionRequest, write_json
from defect_hub.train.prediction.shards import explained_disk_errors
from defect_hub.train.recording import versions

_CARD = """---
{front}---

# Predictions of {model}

One row for each of the {rows} images of `{data}` (split `{split}`), in their order: {defective} defective, {normal}
normal, {errors} that could not be used (`error` says why). `predictions.json` holds model, options and versions.

```python
from datasets import load_dataset

rows = load_dataset("FOLDER", split="{split}")  # this folder
```

They are the model's opinion, not annotations.
"""


def publish(request: PredictionRequest, record: dict[str, Any], facts: dict[str, Any]) -> None:
    """Put merged files in place, write card and record beside them, and remove what is no longer needed.

    Args:
        request: whose files are merged.
        record: of the request.
        facts: about the run that finished it.

    Raises:
        OSError: if the disk is full; the same command goes on.
    """
    with explained_disk_errors(request.out):
        data = request.out / "data"
        if not data.exists():
            request.merged.rename(data)
        counts = _counts(data)
        document = {**record, **counts, **facts, "created": f"{datetime.now(UTC):%Y-%m-%d}", "versions": versions()}
        (request.out / "README.md").write_text(_card(request, document, data), encoding="utf-8")
        write_json(request.out / RESULT_FILE, document)
        shutil.rmtree(request.work)


def result_line(out: Path) -> str:
    """What a finished folder holds."""
    found = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
    unusable = f", {found['errors']} could not be used" if found["errors"] else ""
    return f"{out}: {found['rows']} images, {found['defective']} defective{unusable}"


def _counts(data: Path) -> dict[str, int]:
    counts = {"rows": 0, "defective": 0, "errors": 0}
    for path in data.glob("*.parquet"):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["is_defective", "error"]):
                counts["rows"] += batch.num_rows
                counts["defective"] += batch["is_defective"].true_count
                counts["errors"] += batch.num_rows - batch["error"].null_count
    return counts


def _card(request: PredictionRequest, document: dict[str, Any], data: Path) -> str:
    """The text of `README.md`.

    `datasets` caches a folder by its front matter, not by its files: so counts, sizes and the model's version stand
    there.
    """
    size = sum(path.stat().st_size for path in data.iterdir())
    splits = datasets.SplitDict()
    splits.add(datasets.SplitInfo(request.split, num_bytes=size, num_examples=document["rows"]))
    features = prediction_features(request.maps)
    info = datasets.DatasetInfo(features=features, splits=splits, download_size=size, dataset_size=size)
    card = DatasetCardData(
        pretty_name=f"Predictions of {document['model']} ({document['model_version']})",
        configs=[{"config_name": "default", "data_files": [{"split": request.split, "path": "data/*.parquet"}]}],
    )
    DatasetInfosDict(default=info).to_dataset_card_data(card)
    front = yaml.safe_dump(card.to_dict(), sort_keys=False, allow_unicode=True)
    return _CARD.format(front=front, normal=document["rows"] - document["defective"] - document["errors"], **document)
