"""How fast SPGDD-GPT of the paper's size runs, with random weights: their values cost no time.

Run `python -m defect_hub.benchmarks.spgdd_gpt_speed`; it prints Markdown tables of the detector on the CPU and writes
them as JSON. `--full-size` lets the 7B model diagnose one image on the CPU instead; it needs 17 GiB of free memory.
`--device cuda` measures the complete model on a GPU instead: latency, throughput, decoding beside the bandwidth of the
memory, one training step.

Calls that are compared take turns. On the CPU they are measured in processor time, which other programs stretch least;
with one thread, that is the time on an idle machine. A ratio is the median over the rounds of one call's time over the
other's, and beside it that of the least times of each.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from defect_hub.benchmarks.measuring import provenance
from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import paper_config
from defect_hub.modeling.text_prompts import prompt_ensemble
from defect_hub.modeling.vv_clip import encode_prompts
from defect_hub.precision import fastest_dtype
from defect_hub.train.adaptation import freeze_bases
from defect_hub.train.recording import without_places
from defect_hub.train.whole_file import write_whole

PAPER_LATENCY = 1293.98
"""Milliseconds an image, published for SPGDD-GPT in Table 11 of the SAM-LLaVA paper."""
SEED = 42
SHOTS = 4
NEW_TOKENS = 75
QUESTION_TOKENS = 32
FULL_SIZE_GIB = 17.0
SECONDS_TO_MS = 1000

Call = Callable[[], Any]
Model = SpgddGptForConditionalGeneration
Table = list[dict[str, Any]]


def seconds(call: Call, device: str) -> float:
    """Time of one call: processor time on the CPU, else wall time to the end of what it started on the GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def interleaved(calls: dict[str, Call], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of every call, by name, in rounds in which they take turns; one round before them warms up."""
    for call in calls.values():
        seconds(call, device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in tqdm(range(rounds), desc=" / ".join(calls), leave=False):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return times


def compared(times: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Milliseconds of two calls and how they compare, by medians and by minima."""
    return {
        f"{name}, ms": SECONDS_TO_MS * statistics.median(times[name]),
        f"{base}, ms": SECONDS_TO_MS * statistics.median(times[base]),
        "ratio": statistics.median(ours / theirs for ours, theirs in zip(times[name], times[base], strict=True)),
        "ratio of minima": min(times[name]) / min(times[base]),
    }


def peak_allocation(call: Call) -> tuple[float, float]:
    """MiB that a call holds at its peak beyond what was there, and its largest single allocation."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = peak = largest = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak, largest = max(peak, held), max(largest, event.nbytes())
    return peak / 2**20, largest / 2**20


def build_detector(matching: str = "aligned", dtype: torch.dtype = torch.float32) -> Model:
    """The detection half at the paper's size."""
    config = paper_config(has_language_model=False, memory_matching=matching)
    return Model._from_config(config, dtype=dtype).eval()


def example_prompts(config: Any) -> torch.Tensor:
    """(1, 2, P, L) token ids of one object's prompts; which words they are costs no time."""
    tower, count = config.clip_config.text_config, len(prompt_ensemble("magnetic tile")[0])
    ids = torch.randint(3, 1000, (1, 2, count, tower.max_position_embeddings))
    ids[..., 0], ids[..., -1] = tower.bos_token_id, tower.eos_token_id
    return ids


def encoder_table(rounds: int) -> Table:
    """Both branches against open_clip's forward of the same backbone."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        ours = build_detector(dtype=dtype)
        theirs = open_clip.create_model("ViT-B-16-plus-240", precision="fp32").eval().to(dtype)
        for batch in (1, 4):
            pixels = torch.randn(batch, 3, 240, 240, dtype=dtype)
            calls: dict[str, Call] = {
                "both branches": partial(ours.encode_images, pixels),
                "open_clip": partial(theirs.encode_image, pixels),
            }
            ratios = compared(interleaved(calls, rounds), "both branches", "open_clip")
            rows.append({"dtype": str(dtype).removeprefix("torch."), "batch": batch, **ratios})
    return rows


def scoring_table(rounds: int) -> Table:
    """Comparing with four references over three blocks, as a share of the encoder's time."""
    rows = []
    for matching in ("aligned", "nearest"):
        model = build_detector(matching)
        references = model.encode_images(torch.randn(SHOTS, 3, 240, 240))[1].unsqueeze(0)
        for batch in (1, 4):
            pixels = torch.randn(batch, 3, 240, 240)
            local = model.encode_images(pixels)[1]
            calls: dict[str, Call] = {
                "scoring": partial(model.model.memory, local, references),
                "encoder": partial(model.encode_images, pixels),
            }
            ratios = compared(interleaved(calls, rounds), "scoring", "encoder")
            peak, largest = peak_allocation(calls["scoring"])
            patches, channels = local.shape[1:]
            every_pair = batch * SHOTS * patches**2 * channels * 4 / 2**20
            memory: dict[str, Any] = {
                "peak MiB": peak,
                "largest tensor, MiB": largest,
                "(B, K, T, T, C) would be, MiB": every_pair,
            }
            rows.append({"matching": matching, "batch": batch, **ratios, **memory})
    return rows


def text_table(rounds: int) -> Table:
    """Texts of one object, encoded and taken from the cache."""
    model = build_detector()
    ids = example_prompts(model.config)
    calls = {"cached": lambda: model.encode_texts(ids), "encoded": lambda: encode_prompts(model.model.clip, ids)}
    times = interleaved(calls, max(2, rounds // 4))
    return [{"prompts": ids[0, :, :, 0].numel(), **compared(times, "cached", "encoded")}]


def precision_table(rounds: int) -> Table:
    """The encoder in both number formats, and the one that `fastest_dtype` takes."""
    calls: dict[str, Call] = {}
    for dtype in (torch.float32, torch.bfloat16):
        pixels = torch.randn(1, 3, 240, 240, dtype=dtype)
        calls[str(dtype).removeprefix("torch.")] = partial(build_detector(dtype=dtype).encode_images, pixels)
    chosen = str(fastest_dtype("cpu")).removeprefix("torch.")
    return [{**compared(interleaved(calls, rounds), "bfloat16", "float32"), "chosen": chosen}]


# The complete model


def build_complete(device: str, dtype: torch.dtype) -> Model:
    """The paper's size with random weights, made where they stay and in their own format: no second copy."""
    with torch.device(device):
        return Model._from_config(paper_config(), dtype=dtype).eval()


def example_inputs(model: Model, batch: int, shots: int) -> dict[str, Any]:
    """A question about random images, with shared references."""
    config, device = model.config, model.device
    ids = torch.randint(3, 1000, (batch, config.num_image_tokens + QUESTION_TOKENS), device=device)
    ids[:, 1 : 1 + config.num_image_tokens] = config.image_token_id
    inputs: dict[str, Any] = {
        "pixel_values": torch.randn(batch, 3, 240, 240, device=device, dtype=model.dtype),
        "prompt_input_ids": example_prompts(config).to(device).expand(batch, -1, -1, -1),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }
    if shots:
        inputs["reference_pixel_values"] = torch.randn(1, shots, 3, 240, 240, device=device, dtype=model.dtype)
    return inputs


def diagnosis(model: Model, inputs: dict[str, Any], tokens: int, **options: Any) -> Call:
    """A call that diagnoses and writes exactly `tokens` tokens."""
    return lambda: model.diagnose(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, **options)


def free_gibibytes() -> float:
    """Memory that this machine could give without swapping."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) / 2**20


def full_size_table() -> Table:
    """One diagnosis of the 7B model on the CPU, in bfloat16."""
    if (free := free_gibibytes()) < FULL_SIZE_GIB:
        raise SystemExit(
            f"--full-size needs {FULL_SIZE_GIB:.0f} GiB of free memory, {free:.1f} GiB are: end other programs"
        )
    start = time.perf_counter()
    model = build_complete("cpu", torch.bfloat16)
    built = time.perf_counter()
    diagnose = diagnosis(model, example_inputs(model, 1, SHOTS), 8)
    diagnose()
    first = time.perf_counter()
    diagnose()
    second = time.perf_counter()
    return [
        {
            "parameters": f"{model.num_parameters():,}",
            "building, s": built - start,
            "first diagnosis, s": first - built,
            "second, texts cached, s": second - first,
            "peak memory of the process, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
    ]


# On a GPU


def bandwidth(device: str, size: int = 2**31) -> float:
    """Bytes a second that the device copies, reading and writing counted."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, 10, device)
    return 2 * source.numel() / min(times["copy"])


def peak_gibibytes(call: Call) -> float:
    """GPU memory at the peak of a call, weights counted."""
    torch.cuda.reset_peak_memory_stats()
    seconds(call, "cuda")
    return torch.cuda.max_memory_allocated() / 2**30


def latency_table(model: Model, rounds: int) -> Table:
    """One image with four references and 75 new tokens; decoding beside the time that reading the weights takes."""
    inputs = example_inputs(model, 1, SHOTS)
    read = (*model.model.language_model.layers.parameters(), *model.lm_head.parameters())
    floor = sum(parameter.numel() * parameter.element_size() for parameter in read) / bandwidth(model.device.type)
    rows = []
    for name, options in (("dynamic cache", {}), ("static cache, compiled", {"cache_implementation": "static"})):
        calls = {
            "whole": diagnosis(model, inputs, NEW_TOKENS, **options),
            "first": diagnosis(model, inputs, 1, **options),
        }
        times = interleaved(calls, rounds, model.device.type)
        whole, first = (statistics.median(times[call]) for call in ("whole", "first"))
        token = (whole - first) / (NEW_TOKENS - 1)
        rows.append(
            {
                "decoding": name,
                "image to text, ms": SECONDS_TO_MS * whole,
                "share of the published 1,293.98 ms": SECONDS_TO_MS * whole / PAPER_LATENCY,
                "to the first token, ms": SECONDS_TO_MS * first,
                "ms a token": SECONDS_TO_MS * token,
                "floor, ms a token": SECONDS_TO_MS * floor,
                "over the floor": token / floor,
                "peak GiB": peak_gibibytes(calls["whole"]),
            }
        )
    return rows


def throughput_table(model: Model, rounds: int, batch: int = 8) -> Table:
    """Images a second in batches, with and without text."""
    inputs = example_inputs(model, batch, SHOTS)
    calls = {
        "maps and text": diagnosis(model, inputs, NEW_TOKENS),
        "maps alone": lambda: model.diagnose(**inputs, describe=False),
    }
    times = interleaved(calls, rounds, model.device.type)
    return [
        {
            "what": name,
            "batch": batch,
            "images/s": batch / statistics.median(times[name]),
            "peak GiB": peak_gibibytes(call),
        }
        for name, call in calls.items()
    ]


def training_table(model: Model, rounds: int, batch: int = 8) -> Table:
    """One step as in the paper: CLIP and language model frozen, the new parts trained by Adam, batch 8."""
    freeze_bases(model.train())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4)
    inputs = example_inputs(model, batch, SHOTS)
    answer = torch.randint(3, 1000, (batch, NEW_TOKENS), device=model.device)
    ids = torch.cat([inputs["input_ids"], answer], dim=1)
    targets = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.cat([torch.full_like(inputs["input_ids"], -100), answer], dim=1),
        "masks": (torch.rand(batch, 240, 240, device=model.device) > 0.95).long(),
        "is_defective": torch.ones(batch, dtype=torch.bool, device=model.device),
    }

    def step() -> None:
        with torch.enable_grad():
            model(**inputs | targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    times = interleaved({"training step": step}, rounds, model.device.type)
    return [
        {
            "batch": batch,
            "trained parameters": f"{sum(map(torch.numel, trained)):,}",
            "step, ms": SECONDS_TO_MS * statistics.median(times["training step"]),
            "peak GiB": peak_gibibytes(step),
        }
    ]


# Output


def shown(value: Any) -> str:
    """A number with three digits, anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows: Table) -> str:
    """A table with a column for each key."""
    cells = [list(rows[0]), ["---:"] * len(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def measure(options: argparse.Namespace) -> dict[str, Table]:
    """All tables that the options ask for, by title."""
    torch.manual_seed(SEED)
    if options.device == "cuda":
        model = build_complete("cuda", torch.bfloat16)
        return {
            "Latency": latency_table(model, options.rounds),
            "Throughput": throughput_table(model, options.rounds),
            "Training": training_table(model, options.rounds),
        }
    if options.full_size:
        return {"Full size": full_size_table()}
    return {
        "Both branches against open_clip": encoder_table(options.rounds),
        f"Comparing with {SHOTS} references": scoring_table(options.rounds),
        "Texts": text_table(options.rounds),
        "Number format": precision_table(options.rounds),
    }


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--full-size", action="store_true", help="only the 7B model, once, on the CPU")
    parser.add_argument("--rounds", type=int, default=15, help="times each call is measured (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("spgdd_gpt_speed.json"), help="default: %(default)s")
    options = parser.parse_args()
    with torch.no_grad():
        tables = measure(options)
    command = f"python -m defect_hub.benchmarks.spgdd_gpt_speed {without_places(sys.argv[1:])}".strip()
    report = provenance(command, SEED) | {"threads": torch.get_num_threads(), "tables": tables}
    report["versions"]["open_clip"] = open_clip.__version__
    write_whole(options.json, json.dumps(report, indent=1) + "\n")
    print("\n\n".join(f"## {title}\n\n{markdown(rows)}" for title, rows in tables.items()))


if __name__ == "__main__":
    main()
