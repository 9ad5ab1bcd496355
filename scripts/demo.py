"""The whole path in one command: images -> data set -> training -> metrics -> Space.

python scripts/demo.py [--raw MT_FOLDER] [--no-serve]

Without `--raw` the images are steelsynth's; with it, the magnetic-tile set (MT) in its own folders. Training goes on
from the tiny checkpoint inside the package, which has seen neither: it was trained on steelsynth of another seed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from defect_hub.embedded import EMBEDDED_CHECKPOINT

STEELSYNTH_IMAGES = 800
STEELSYNTH_SEED = 2026  # not the seed of the embedded checkpoint's training images
ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path) -> None:
    """Run one of the project's own commands, shown as a person would type it."""
    print(f"\n$ {' '.join(str(part) for part in command)}", flush=True)
    subprocess.run([str(part) for part in command], check=True)


def program(name: str) -> str:
    """A console script of this environment."""
    return str(Path(sys.executable).parent / name)


def train(config: str, data: Path, output_dir: Path) -> Path:
    """Train by a committed recipe; returns the model folder."""
    script = ROOT / "train" / "spgdd_gpt.py"
    recipe = ROOT / "train" / "configs" / config
    fixed = ("--model", EMBEDDED_CHECKPOINT, "--data", data, "--output_dir", output_dir)
    run(program("accelerate"), "launch", "--num_processes", "1", script, "--config", recipe, *fixed)
    return output_dir / "model"


def steelsynth_demo(work: Path) -> Path:
    """Synthetic images: build, train, metric table on held-out images."""
    data = work / "steelsynth"
    count, seed = str(STEELSYNTH_IMAGES), str(STEELSYNTH_SEED)
    run(program("defect-hub"), "data", "build", "steelsynth", "--n", count, "--seed", seed, "--out", data)
    model = train("spgdd_gpt_tiny_steelsynth.yaml", data, work / "runs" / "steelsynth")
    metrics = json.loads((model.parent / "metrics.json").read_text())
    print("\nsteelsynth, held-out images, zero-shot\n\n| metric | value |\n|---|---:|")
    print("\n".join(f"| {name} | {value:.3f} |" for name, value in metrics.items()))
    return model


def magnetic_tile_demo(raw: Path, work: Path) -> Path:
    """Real magnetic tiles: build, train, few-shot table over five draws of references."""
    data = work / "tadd"
    run(program("defect-hub"), "data", "build", "tadd", "--subsets", "MT", "--raw", raw, "--out", data)
    model = train("spgdd_gpt_tiny_mt.yaml", data, work / "runs" / "mt")
    result = work / "few_shot.json"
    few_shot = ("-m", "defect_hub.benchmarks.few_shot", "--model", model, "--data", data, "--out", result)
    run(sys.executable, *few_shot)
    return model


def main() -> None:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, help="folder of the MT set (MT_Blowhole/, MT_Free/, ...)")
    parser.add_argument("--no-serve", action="store_true", help="do not open the Space at the end")
    parser.add_argument("--work", type=Path, default=Path("demo"), help="folder of everything written")
    options = parser.parse_args()
    start = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        model = magnetic_tile_demo(options.raw, options.work) if options.raw else steelsynth_demo(options.work)
        print(f"\nDone in {time.monotonic() - start:.0f} s. The model is in {model}")
        if not options.no_serve:
            run(sys.executable, ROOT / "spaces" / "defect_diagnosis" / "app.py", "--model", model)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has said what is wrong
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
