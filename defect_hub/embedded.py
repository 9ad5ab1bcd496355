"""Where the checkpoint lies that ships inside the package."""

from pathlib import Path

EMBEDDED_CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-spgdd-gpt"
"""A small SPGDD-GPT trained on steelsynth, generated steel surfaces, alone."""
