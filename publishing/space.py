"""A Space, or a metric, as a repository of the Hub.

A metric is a Space that also holds the `evaluate` module of its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import SpaceCard
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from defect_hub._version import __version__
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.publishing.staged import REPO_ID, Staged

_PACKAGE = "defect-hub"
_PARTS = re.compile(r"README\.md|requirements\.txt|\w+\.py|examples/\w[\w.-]*\.(jpg|jpeg|png|webp)")
# What runs and what visitors are shown must be what was staged, also where somebody edited the Space by hand.
_OWNED = ("*.py", "examples/*")
_COLOUR = ("red|yellow|green|blue|indigo|purple|pink|gray", "a colour of the Hub: red, yellow, green, blue, ... gray")
# Field of the card -> what it must match, and how to say so. The Hub checks most of this only after the upload.
_FIELDS: Mapping[str, tuple[str, str]] = {
    "title": (r"\S.*", "a title"),
    "emoji": (r"[^\x00-\x7f]+", "an emoji"),
    "colorFrom": _COLOUR,
    "colorTo": _COLOUR,
    "sdk": ("gradio", "gradio"),
    "sdk_version": (r"\d+\.\d+\.\d+", "an exact version such as 6.31.0"),
    "python_version": (r"3\.\d+(\.\d+)?", 'a version in quotes such as "3.11"'),
    "app_file": (r"\w+\.py", "the name of a Python file beside the card"),
    "license": (r"[a-z0-9.-]+", "a licence of the Hub such as apache-2.0"),
    "short_description": (".{1,60}", "one line of at most 60 characters"),
}


def stage_space(
    folder: Path,
    repo_id: str,
    staging: Path,
    requirement: str | None = None,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> Staged:
    """The repository of a Space.

    Args:
        folder: Of the Space: README.md, requirements.txt, Python files, and images in `examples`.
        repo_id: The repository.
        staging: Stays empty: the two files that are rewritten are small.
        requirement: As for `stage_metric`.
        models: Hub ids for the card; the Space runs the first. Without any, the card's own stay.
        datasets: Hub ids for the card. Without any, the card's own stay.

    Raises:
        DataError: A file is missing, or one of its fields would not work on the Hub.
    """
    card = _read_card(folder)
    for repository in (*models, *datasets):
        if not re.fullmatch(REPO_ID, repository):
            raise DataError(folder, "models", f"{repository!r} is no id of the Hub", "Give it as NAMESPACE/NAME")
    if models:
        card.data["models"] = list(models)
    if datasets:
        card.data["datasets"] = list(datasets)
    return _staged(folder, card, requirement)


def stage_metric(folder: Path, repo_id: str, staging: Path, requirement: str | None = None) -> Staged:
    """The repository of a metric, so that `evaluate.load(repo_id)` takes it.

    Args:
        folder: Of the metric: the files of a Space, and its module.
        repo_id: The repository; its name is that of the module.
        staging: Stays empty: the two files that are rewritten are small.
        requirement: How the Space's build gets this package. None is this version, from PyPI; else a line of
            requirements.txt, such as "defect-hub[space] @ https://huggingface.co/datasets/org/wheels/resolve/main/
            defect_hub-0.1.0-py3-none-any.whl". A wheel inside the Space does not work: while packages are installed,
            the build sees requirements.txt and no other file.

    Raises:
        DataError: A file is missing, or one of its fields would not work on the Hub; or the repository is not named
            like the module.
    """
    card = _read_card(folder)
    name = repo_id.rpartition("/")[2]
    card.text = re.sub(rf'evaluate\.load\("(?:[^"]*/)?{re.escape(name)}"', f'evaluate.load("{repo_id}"', card.text)
    staged = _staged(folder, card, requirement)
    if f"{name}.py" not in staged.files:
        problem = f"{repo_id} is not named like the module, so evaluate.load would not find it"
        raise DataError(folder, f"{name}.py", problem, f"Publish it as a repository named {folder.resolve().name}")
    return staged


def _staged(folder: Path, card: SpaceCard, requirement: str | None) -> Staged:
    files, notes = _parts(folder)
    app = card.data["app_file"]
    if app not in files:
        raise DataError(folder / "README.md", "app_file", f"{app} is not in the folder", "Name the file to run")
    lines = list(_requirement_lines(folder / "requirements.txt", requirement))
    if requirement is None:
        notes.append(f"requirements.txt: the build installs {_PACKAGE} {__version__} from PyPI: it must be there")
    rewritten = {"README.md": str(card), "requirements.txt": "".join(f"{line}\n" for line in lines)}
    return Staged(
        repo_type="space",
        files={**files, **{name: text.encode() for name, text in rewritten.items()}},
        message=f"{card.data['title']}, of {_PACKAGE} {__version__}",
        owned=_OWNED,
        notes=tuple(notes),
    )


def _parts(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Path in the repository -> file, and a note for each thing that is left out."""
    examples = folder / "examples"
    inside = list(examples.iterdir()) if examples.is_dir() and not examples.is_symlink() else []
    files, notes = {}, []
    for path in sorted([*folder.iterdir(), *inside]):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            notes.append(f"{name}: left out, a link")
        elif _PARTS.fullmatch(name) and path.is_file():
            files[name] = path
        elif not (inside and path == examples):
            notes.append(f"{name}: left out, neither card, requirements, module nor image in examples")
    return files, notes


def _read_card(folder: Path) -> SpaceCard:
    path = folder / "README.md"
    text = _read(path)
    try:
        card = SpaceCard(text)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise DataError(
            path, "front matter", f"cannot be read ({error})", "Correct the YAML between the ---"
        ) from error
    fields = card.data.to_dict()
    for field, (pattern, meaning) in _FIELDS.items():
        value = fields.get(field)
        if not (isinstance(value, str) and re.fullmatch(pattern, value)):
            raise DataError(path, field, f"is {value!r}", f"Write {meaning}")
    return card


def _read(path: Path) -> str:
    if path.is_symlink():
        raise DataError(path, "file", "is a link", "Put the file itself into the folder")
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        remedy = "Name a folder such as spaces/defect_diagnosis of a clone; installed packages hold no Spaces"
        raise DataError(path, "file", "is missing", remedy) from error
    except UnicodeDecodeError as error:
        raise DataError(path, "file", "is not UTF-8", "Save it as UTF-8") from error


def _requirement_lines(path: Path, requirement: str | None) -> Iterator[str]:
    """The lines of requirements.txt with the package in this version, or as `requirement` names it."""
    found = False
    for line in _read(path).splitlines():
        if not line.strip() or line.startswith("#"):
            yield line
            continue
        wanted = _parsed(line, path)
        name = canonicalize_name(wanted.name)
        if name == "gradio":
            raise DataError(path, line, "comes from sdk_version of the card", "Remove the line")
        if name == _PACKAGE:
            found = True
            own = _own(requirement) if requirement else Requirement(f"{_PACKAGE}=={__version__}")
            # What this Space needs holds also where the package comes from elsewhere.
            own.extras |= wanted.extras
            yield str(own)
            continue
        _check_pinned(wanted, path)
        yield line
    if not found:
        raise DataError(path, _PACKAGE, "is not listed", f"Add the line {_PACKAGE}[space]")


def _own(requirement: str) -> Requirement:
    wanted = _parsed(requirement, "--requirement")
    if canonicalize_name(wanted.name) != _PACKAGE:
        raise DataError("--requirement", requirement, f"is not {_PACKAGE}", f"Write {_PACKAGE}[space] @ https://...")
    _check_pinned(wanted, "--requirement")
    return wanted


def _parsed(line: str, place: str | Path) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        problem = "is no requirement that a Space can install: its build sees no file but requirements.txt"
        raise DataError(place, line, problem, "Write name==version, or name @ https://...") from error


def _check_pinned(wanted: Requirement, place: str | Path) -> None:
    exact = [part.operator in ("==", "===") and "*" not in part.version for part in wanted.specifier] == [True]
    if not (wanted.url.startswith("https://") if wanted.url else exact):
        raise DataError(place, str(wanted), "is not pinned", "Write name==version, or name @ https://...")
