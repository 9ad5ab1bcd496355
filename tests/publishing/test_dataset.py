import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from defect_hub.dataset_scripts import statistics
from defect_hub.dataset_scripts.mmio.build import build_mmio
from defect_hub.dataset_scripts.mmio.collection import collect
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.release import write_release
from defect_hub.dataset_scripts.steeldefectx.build import build_steeldefectx
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.dataset_scripts.steelsynth.release import write_release as write_steel
from defect_hub.dataset_scripts.tadd.build import build_tadd
from defect_hub.dataset_scripts.transfer.build import build_transfer
from defect_hub.publishing import dataset
from defect_hub.publishing.dataset import AUDIT, LISTS, MANIFEST, stage_dataset
from defect_hub.publishing.staged import Staged
from tests.dataset_scripts import mmio_layouts, tadd_layouts

# Task ids of the Hub that a data set can name, as its page of tasks lists them.
TASKS = {
    *("image-classification", "image-segmentation", "image-to-text", "object-detection", "visual-question-answering"),
    *("zero-shot-image-classification", "zero-shot-object-detection"),
}
OPEN, CLOSED = "BSData", "RSDD"
WITH_FIGURES = ("steelsynth", "tadd")
"""Builders whose figures are drawn, which takes most of the time of a small folder."""


def make_tadd(root: Path, out: Path) -> None:
    """Pictures that may be passed on, one of which does not decode, and others that may not."""
    for name in ("bsdata", "rsdd"):
        tadd_layouts.LAYOUTS[name][1](root / "raw")
    next(path for path in sorted((root / "raw" / OPEN).rglob("*.jpg"))).write_bytes(b"no picture")
    build_tadd(root / "raw", out, skip_bad=True)


def make_mmio(root: Path, out: Path) -> None:
    for name in ("neu_det/flat", "bsdata"):
        mmio_layouts.LAYOUTS[name](root / "raw")
    build_mmio(collect(root / "raw"), out)


def make_steeldefectx(root: Path, out: Path) -> None:
    write_steel(root / "raw", n_train=12, n_val=5, seed=3, size=64)
    build_steeldefectx(root / "raw", out)


def make_transfer(root: Path, out: Path) -> None:
    for name in ("Ak", "Tq", "Gs", "Yh", "Xs"):
        folder = root / "raw" / f"Tube_{name}" / "Images"
        folder.mkdir(parents=True)
        Image.effect_noise((48, 40), 60).save(folder / f"{name}.png")
    build_transfer("cgfsds-9", root / "raw", out)


BUILDERS: dict[str, Callable[[Path, Path], None]] = {
    "steelsynth": lambda _, out: build_steelsynth(out, n=12, seed=1) and None,
    "tadd": make_tadd,
    "mmio": make_mmio,
    "steeldefectx": make_steeldefectx,
    "transfer": make_transfer,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The built folder of a builder; the raw data of which it was built lies beside it."""
    root = tmp_path_factory.mktemp("built")

    def build(name: str) -> Path:
        if not (root / name).exists():
            (root / name).mkdir()
            BUILDERS[name](root / name, root / name / name)
        return root / name / name

    return build


@pytest.fixture(scope="module")
def staged(built: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Staged]:
    """The built folder of a builder as it would be published; staging it left it as it was."""
    found: dict[str, Staged] = {}

    def stage(name: str) -> Staged:
        if name not in found:
            folder = built(name)
            before = hashes(folder)
            with pytest.MonkeyPatch.context() as patch:
                if name not in WITH_FIGURES:
                    draw_nothing(patch)
                found[name] = stage_dataset(folder, f"defects/{name}", tmp_path_factory.mktemp("staging"))
            assert hashes(folder) == before
        return found[name]

    return stage


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(statistics, "draw_figures", lambda *_: {"classes.png": b"a figure"})
    patch.setattr(statistics, "draw_box_figures", lambda *_: {"box_sizes.png": b"another"})


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at figures."""
    draw_nothing(monkeypatch)


def content(staged: Staged) -> dict[str, bytes]:
    return {name: part if isinstance(part, bytes) else part.read_bytes() for name, part in staged.files.items()}


def hashes(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def rows(files: Mapping[str, bytes]) -> pa.Table:
    shards = [pq.read_table(io.BytesIO(data)) for name, data in files.items() if name.endswith(".parquet")]
    return pa.concat_tables(shards)


def card(staged: Staged) -> str:
    return content(staged)["README.md"].decode()


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_what_may_be_passed_on_is_published_from_the_folder_itself(
    built: Callable[[str], Path], staged: Callable[[str], Staged]
) -> None:
    folder, found = built("steelsynth"), staged("steelsynth")
    shards = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
    assert {name for name in found.files if name.startswith("data/")} == shards
    assert all(found.files[name] == folder / name for name in (*shards, "splits.csv"))
    assert {"README.md", AUDIT, "statistics/samples.jpg", "statistics/statistics.json"} <= found.files.keys()
    digest = re.search(r"\nbuild_digest: (\w+)", card(found))
    assert digest and found.message == f"steelsynth: build {digest[1][:16]}"
    assert (found.repo_type, found.notes) == ("dataset", ())


def test_images_that_must_not_be_passed_on_stay_behind(
    built: Callable[[str], Path], staged: Callable[[str], Staged]
) -> None:
    files, raw = content(staged("tadd")), built("tadd").parent / "raw"
    table = rows(files)
    assert {*table["source"].to_pylist()} == {OPEN, CLOSED}
    for row in table.to_pylist():
        assert (row["image"] is None) == (row["source"] == CLOSED)
    stored = b"".join(files.values())
    pictures = [path for path in raw.rglob("*") if path.suffix in (".jpg", ".png") and path.stat().st_size > 200]
    inside = {path.read_bytes()[-100:] in stored for path in pictures if path.is_relative_to(raw / "BSData")}
    assert len(pictures) >= 8 and inside == {True}
    assert not [
        path for path in pictures if not path.is_relative_to(raw / "BSData") and path.read_bytes()[-100:] in stored
    ]
    count = table["source"].to_pylist().count(CLOSED)
    assert (
        f"withheld: images of {count} rows ({CLOSED} {count}); give --i-hold-the-rights SOURCE"
        in staged("tadd").notes[0]
    )
    assert re.search(rf"\| {CLOSED} \| [^|]+ \| {count} \| 0 \|", card(staged("tadd")))
    assert "states to hold" not in card(staged("tadd"))


@pytest.mark.usefixtures("no_figures")
def test_sources_whose_rights_one_holds_are_whole(built: Callable[[str], Path], tmp_path: Path) -> None:
    staged = stage_dataset(built("tadd"), "defects/tadd", tmp_path, keep=[CLOSED])
    shards = [path for name, path in staged.files.items() if name.startswith("data/")]
    assert not any(isinstance(path, Path) and tmp_path in path.parents for path in shards)  # They are the build's own.
    assert staged.notes[0].startswith("published because you hold the rights: images of ")
    assert f"states to hold the rights in the images of {CLOSED};" in card(staged)
    with pytest.raises(DataError, match=r"keep: there are no rows of RSD\. Name one of BSData, RSDD"):
        stage_dataset(built("tadd"), "defects/tadd", tmp_path / "other", keep=["RSD"])
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("no_figures")
def test_terms_of_access_are_taken_from_the_folders_card(built: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(built("tadd"), tmp_path / "mine")
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("---\n", "---\nextra_gated_prompt: For research only.\n", 1))
    staged = stage_dataset(folder, "defects/tadd", tmp_path / "staging")
    assert DatasetCard(card(staged)).data.to_dict()["extra_gated_prompt"] == "For research only."


@pytest.mark.usefixtures("no_figures")
def test_a_release_is_published_as_it_is(built: Callable[[str], Path], tmp_path: Path) -> None:
    write_release(built("tadd"), tmp_path / "tadd-open")
    staged = stage_dataset(tmp_path / "tadd-open", "defects/tadd", tmp_path / "staging")
    assert staged.notes == ()
    assert "defect-hub data join tadd --raw" in card(staged)
    shown = [name for name in staged.files if staged.files[name] == tmp_path / "tadd-open" / name]
    assert [name for name in staged.files if name.startswith("data/")] == [name for name in shown if "data/" in name]


@pytest.mark.usefixtures("no_figures")
def test_a_complete_result_is_used_again_and_only_for_the_same(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(built("tadd"), tmp_path / "mine")
    first = content(stage_dataset(folder, "defects/tadd", tmp_path / "staging"))
    audits: list[object] = []
    audit = dataset.audit
    monkeypatch.setattr(dataset, "audit", lambda *args: audits.append(args) or audit(*args))
    assert content(stage_dataset(folder, "defects/tadd", tmp_path / "staging")) == first
    assert not audits
    whole = stage_dataset(folder, "defects/tadd", tmp_path / "staging", keep=[CLOSED])
    assert len(audits) == 1
    # The null images of the earlier result are gone, from the files and from the disk.
    assert not list((tmp_path / "staging").rglob("*.parquet"))
    assert content(whole) != first
    os.utime(folder / "splits.csv")
    stage_dataset(folder, "defects/tadd", tmp_path / "staging", keep=[CLOSED])
    assert len(audits) == 2
    assert sorted(path.name for path in (tmp_path / "staging").iterdir()) == ["tadd", "tadd.json"]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("step", ["audit", "write_statistics"])
def test_what_was_interrupted_is_made_anew(built: Callable[[str], Path], tmp_path: Path, step: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, step, interrupt)
        stage_dataset(built("tadd"), "defects/tadd", tmp_path / "staging")
    again = stage_dataset(built("tadd"), "defects/tadd", tmp_path / "staging")
    assert content(again) == content(stage_dataset(built("tadd"), "defects/tadd", tmp_path / "at once"))


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_removal_of_an_earlier_result_is_finished(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(built("tadd"), tmp_path / "mine")
    first = content(stage_dataset(folder, "defects/tadd", tmp_path / "staging"))
    os.utime(folder / "splits.csv")

    def interrupt(out: Path, **_: object) -> None:
        if out.exists():  # The card first, by which a folder is known as ours.
            (out / "README.md").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset.shutil, "rmtree", interrupt)
        stage_dataset(folder, "defects/tadd", tmp_path / "staging")
    assert content(stage_dataset(folder, "defects/tadd", tmp_path / "staging")) == first


def test_equal_builds_are_published_in_equal_bytes(
    built: Callable[[str], Path], staged: Callable[[str], Staged], tmp_path: Path
) -> None:
    folder = copied(built("tadd"), tmp_path / "another")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    # Figures that were made before, and their place in the card, make no difference.
    (folder / "statistics").mkdir()
    (folder / "statistics" / "classes.png").write_bytes(b"of another day")
    text = (folder / "README.md").read_text()
    assert "<!-- statistics -->" in text
    (folder / "README.md").write_text(text.replace("<!-- statistics -->", "<!-- statistics -->\nearlier"))
    again = stage_dataset(folder, "defects/tadd", tmp_path / "elsewhere", workers=2)
    assert content(again) == content(staged("tadd"))
    assert (again.message, again.notes) == (staged("tadd").message, staged("tadd").notes)


@pytest.mark.parametrize("name", BUILDERS)
def test_no_place_on_the_disk_is_published(
    built: Callable[[str], Path], staged: Callable[[str], Staged], name: str
) -> None:
    folder = built(name).parents[1]
    for file, data in content(staged(name)).items():
        parts = [data]
        if file.endswith(".parquet"):
            with pq.ParquetFile(io.BytesIO(data)) as shard:
                parts += [str(shard.metadata.metadata).encode(), str(shard.read().to_pylist()).encode()]
        for part in parts:
            assert str(folder).encode() not in part, file
            assert not re.search(rb"[\"' ](?:/home|/root|/tmp|/work|/Users)/", part), file
    if name == "tadd":
        assert re.search(r"- skipped: [^/\n]+/[^/\n]+: image: is not an image", card(staged(name)))


@pytest.mark.usefixtures("no_figures")
def test_what_no_builder_wrote_is_left_out_and_named(built: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(built("steelsynth"), tmp_path / "mine")
    secret = tmp_path / "secret.csv"
    secret.write_text("image_id\n")
    (folder / "notes.txt").write_text("to do")
    (folder / "model.bin").write_bytes(b"\x80")
    (folder / ".git" / "objects").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / ".git" / "objects" / name).write_text("")
    (folder / "extra.csv").symlink_to(secret)
    (folder / "more").symlink_to(tmp_path)
    (folder / "data" / "old.parquet").write_bytes(b"")
    staged = stage_dataset(folder, "defects/steelsynth", tmp_path / "staging")
    assert staged.notes == (
        "left out, no files of a build: .git, data/old.parquet, extra.csv, model.bin, more and 1 more",
    )
    assert not {"notes.txt", "extra.csv", "model.bin"} & staged.files.keys()


def spoil_row_groups(shard: Path) -> None:
    table = pq.read_table(shard)
    pq.write_table(pa.concat_tables([table] * 20), shard, write_page_index=True)


def spoil_index(shard: Path) -> None:
    pq.write_table(pq.read_table(shard), shard)


def spoil_image(shard: Path) -> None:
    table = pq.read_table(shard)
    place = table.schema.get_field_index("sha256")
    hashes = pa.array(["0" * 64] * len(table), "string")
    pq.write_table(table.set_column(place, table.schema.field(place), hashes), shard, write_page_index=True)


def spoil_pages(shard: Path) -> None:
    data = shard.read_bytes()
    shard.write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])


def move_out(path: Path) -> None:
    outside = path.rename(path.parents[3] / path.name)
    path.symlink_to(outside)


def link_list(shard: Path) -> None:
    (shard.parents[2] / "categories.csv").symlink_to(shard.parents[2] / "splits.csv")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_row_groups, r"row groups: one has \d+ rows, more than 100\. Build the data set again"),
        (spoil_index, r"page index: is missing\. Build the data set again"),
        (spoil_image, r"sha256: is not that of the image\. .* \(and \d+ more problems\)"),
        (spoil_pages, r"data: cannot be read"),
        (move_out, r"train-00000-of-00001\.parquet: file: is a link"),
        (link_list, r"categories\.csv: file: is a link"),
        (Path.unlink, r"README\.md: data_files: there is no file data/default/train-\*\.parquet"),
        (lambda shard: shard.write_bytes(b"PAR1"), r"is not readable as Parquet"),
        (
            lambda shard: shutil.copy(shard, shard.with_name("old.parquet")),
            r"old\.parquet: file: belongs to no config",
        ),
        (lambda shard: (shard.parents[2] / "splits.csv").unlink(), r"splits\.csv"),
    ],
)
def test_what_does_not_suit_the_hub_is_refused_and_nothing_is_staged(
    built: Callable[[str], Path], tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = copied(built("steelsynth"), tmp_path / "mine")
    spoil(folder / "data" / "default" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=message):
        stage_dataset(folder, "defects/steelsynth", tmp_path / "staging")
    assert not (tmp_path / "staging").exists()


def test_shards_are_not_larger_than_the_hub_shows(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MAX_SHARD_BYTES", 1000)
    with pytest.raises(DataError, match=r"size: [\d,]+ bytes are more than 1,000\. Build the data set again"):
        stage_dataset(built("steelsynth"), "defects/steelsynth", tmp_path)


def test_staging_lies_apart(built: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match="is not apart from"):
        stage_dataset(built("steelsynth"), "defects/steelsynth", built("steelsynth") / "staging")


@pytest.mark.parametrize("name", BUILDERS)
def test_cards_are_those_of_the_hub(built: Callable[[str], Path], staged: Callable[[str], Staged], name: str) -> None:
    text, files = card(staged(name)), staged(name).files
    about = DatasetCard(text).data
    assert {*about.task_categories} <= TASKS
    assert about.license == ("apache-2.0" if name == "steelsynth" else "other")
    assert about.size_categories == ["n<1K"]
    assert about.configs[0]["config_name"] == "default"
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert link in files or link == MANIFEST
    assert {AUDIT, MANIFEST} <= {*re.findall(r"\]\(([^)]+)", text)}
    named = re.findall(r'load_dataset\(\s*"([^"]+)"', text)
    assert named and {*named} == {f"defects/{name}"}
    assert "this folder, seen from its parent" not in text
    lists = {path.name for path in built(name).iterdir() if path.is_file()} - {"README.md"}
    assert lists <= {*LISTS} and lists <= files.keys()
    table = rows({key: value for key, value in content(staged(name)).items() if "/few_shot/" not in key})
    for source in {*table["source"].to_pylist()}:
        own = [row for row in table.select(["source", "image"]).to_pylist() if row["source"] == source]
        there = sum(row["image"] is not None for row in own)
        assert re.search(rf"^\| {source} \| [^|]+ \| {len(own):,} \| {there:,} \|$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["steelsynth", "tadd", "mmio"])
def test_published_files_load_as_the_card_says(staged: Callable[[str], Staged], name: str, tmp_path: Path) -> None:
    home = laid_out(staged(name), tmp_path)
    data = load_dataset(str(home), cache_dir=str(tmp_path / "cache"))
    text = card(staged(name))
    for split, part in data.items():
        assert re.search(rf"\| `default` \| all columns \|.*\b{split} {len(part)}\b", text)


def laid_out(staged: Staged, root: Path) -> Path:
    """The files as a repository of the Hub holds them."""
    home = root / "defects" / staged.message.split(":")[0]
    for name, data in content(staged).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)
    return home


@pytest.mark.parametrize("name", BUILDERS)
def test_shown_code_runs(
    staged: Callable[[str], Staged], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out(staged(name), tmp_path)  # A local folder of the repository's name is what the name loads.
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", card(staged(name)), re.DOTALL))
    assert "load_dataset" in code
    exec(code, {})


@pytest.mark.real_data
def test_real_tiles_are_published_and_road_photos_withheld(raw_data: Path, tmp_path: Path) -> None:
    build_tadd(raw_data, tmp_path / "tadd", ["MT", "CFD"], workers=2)
    staged = stage_dataset(tmp_path / "tadd", "defects/tadd", tmp_path / "staging", workers=2)
    assert staged.notes == ("withheld: images of 155 rows (CFD 155); give --i-hold-the-rights SOURCE to publish them",)
    assert "| MT | any purpose by the author's word, cite the paper | 317 | 317 |" in card(staged)
    files = content(staged)
    stored = b"".join(files.values())
    found = [path.read_bytes()[-200:] in stored for path in sorted((raw_data / "CFD").rglob("*.jpg"))]
    assert len(found) > 100 and not any(found)
    assert str(tmp_path).encode() not in stored and str(raw_data).encode() not in stored
