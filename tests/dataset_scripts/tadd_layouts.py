"""Small generated copies of TADD's sets in the folders, names and file types in which the sets are published.

Not a test: fixtures for the readers, written from public descriptions and not from the reader's own table, so that the
two check each other. The pictures are random textures, 48 to 160 px a side, darker where the mask is; very long strips
(Aitex 16:1, Type-II RSDDs 23:1) are shortened.

| layout | what was read to describe it |
| --- | --- |
| aitex | S. Gilbert's notes on the merged masks, a reader that renames the folders, an audit of all 247 files |
| cracktree200 | khanhha/crack_segmentation preprocess/merge_dataset.py, an inventory (206 rgb, gray and gt files) |
| gaps384 | the same merge_dataset.py, names from CrackConglomerate350 |
| crack500_full | readers of CRACK500/traindata with `_mask.png`; grey edges as in the part that the tests read |
| crack500_crops | fyangneil/pavement-crack-detection examples/fphb/train.txt, merge_dataset.py |
| conglomerate/* | khanhha/crack_segmentation README.md and merge_dataset.py, paths of its users |
| vt_conglomerate/* | users of Virginia Tech's Concrete Crack Conglomerate, the paper's source of Eugen_Miller |
| crackseg9k/* | three readers of Harvard Dataverse EGIEBY, the paper's source of Rissbilder and Volker |
| visa | amazon-science/spot-diff README.md, utils/id2class.py, utils/prepare_data.py, split_csv/1cls.csv |
| kolektorsdd | anomalib's Kolektor reader, vicoslab/mixed-segdec-net-comind2021 data/input_ksdd.py and dataset.py |
| kolektorsdd2 | the same repository's data/input_ksdd2.py, an audit that names `10301 (copy).png` |
| liaci | two readers of masks/<class>/image_0001.bmp, one of train_test_split.csv |
| mvtec | the leather sample, dataset-ninja/mvtec-AD src/convert.py |
| rsdd, rsdd2 | four readers: "Rail surface images" and "GroundTruth" hold JPEG files of equal names |
| neu_cls | readers of Cr_1.bmp ... Sc_300.bmp in one folder; gray as in SD-saliency-900 |
| bsdata | 2Obe/BSData |
| authors/* | INDTLab/SPGDD-GPT code/datasets/mvtec.py, code/test_mvtec.py; names of defect folders are not published |

No public description was found of the own layouts of OUC-Crack and RubberTires, the merged masks of LIACI and its COCO
file, and the saliency maps of CrackSeg9k: they are not here.
"""

import base64
import csv
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ExpectedImage:
    """What a reader must find out about one image.

    Attributes:
        category: the set's own word (folder, code, class; of several the one with most pixels), "" where it has none.
        is_defective: None where nobody says.
        mask: (H, W), all False where the set says that there is no defect, None where it does not place one.
        split: "train", "validation" or "test" where it is the set's own or that of the collection it lies in.
        annotation: what places the defect, "mask", "boxes" or "none".
        regions: the mask by the set's own words, where it can have several.
    """

    category: str
    is_defective: bool | None
    mask: Mask | None
    split: str | None
    annotation: str
    regions: dict[str, Mask] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What a reader must find in `root / folder`: `images` has every image of the subset, by its path in there.

    `copies` are further files in there that repeat others, or show them in gray: no images of their own.
    """

    subset: str
    folder: str
    images: dict[str, ExpectedImage]
    copies: frozenset[str]


class _Folder:
    """A set's folder that is being written. `size` (width, height) and `mode` are those of the next picture."""

    def __init__(self, root: Path, subset: str, folder: str, size: tuple[int, int], mode: str = "RGB") -> None:
        self.root, self.subset, self.folder, self.size, self.mode = root / folder, subset, folder, size, mode
        self.rng = np.random.default_rng(zlib.crc32(f"{folder}/{subset}/{size}".encode()))
        self.images: dict[str, ExpectedImage] = {}
        self.copies: set[str] = set()

    def expected(self) -> Expected:
        return Expected(self.subset, self.folder, self.images, frozenset(self.copies))

    def blank(self) -> Mask:
        return np.zeros(self.size[::-1], bool)

    def disc(self, x: float, y: float, radius: float = 9) -> Mask:
        """Return a disc; its centre in parts of the size, its radius in pixels."""
        rows, columns = np.indices(self.size[::-1])
        inside: Mask = (columns - x * self.size[0]) ** 2 + (rows - y * self.size[1]) ** 2 <= radius**2
        return inside

    def line(self, start: float, end: float, width: float = 6) -> Mask:
        """Return a line from the left edge at height `start` to the right edge at `end`, in parts of the height."""
        rows, columns = np.indices(self.size[::-1])
        inside: Mask = abs(rows - self.size[1] * (start + (end - start) * columns / self.size[0])) <= width / 2
        return inside

    def path(self, name: str) -> Path:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        return self.root / name

    def save(self, name: str, pixels: NDArray[np.uint8]) -> None:
        Image.fromarray(pixels).save(self.path(name), quality=95)  # PNG and BMP ignore the quality

    def save_mask(self, name: str, mask: Mask) -> None:
        self.save(name, np.where(mask, 255, 0).astype(np.uint8))

    def picture(self, name: str, mask: Mask | None = None) -> None:
        """Write a texture that no other picture is like, darker where the mask is."""
        coarse = Image.fromarray(self.rng.uniform(90, 210, (12, 12)).astype(np.float32))
        gray = np.asarray(coarse.resize(self.size, Image.Resampling.BICUBIC)) + self.rng.normal(0, 4, self.size[::-1])
        if mask is not None:
            gray = gray - 70 * mask
        tint = np.array([1, 0.96, 0.9]) if self.mode == "RGB" else np.ones(1)
        self.save(name, np.clip(gray[..., None] * tint, 0, 255).astype(np.uint8).squeeze())

    def add(
        self, name: str, category: str, defective: bool | None, mask: Mask | None = None, split: str | None = None
    ) -> None:
        """Write a picture and note what is expected of it; its annotation files are the caller's to write."""
        self.picture(name, mask)
        placed = "mask" if mask is not None and mask.any() else "none"
        self.images[name] = ExpectedImage(category, defective, mask, split, placed)

    def add_regions(self, name: str, defective: bool | None, regions: Mapping[str, Mask], split: str) -> None:
        """Like `add`, with the defect pixels of each category, the largest first."""
        union = np.logical_or.reduce([self.blank(), *regions.values()])
        self.add(name, next(iter(regions), ""), defective, union, split)
        self.images[name].regions.update(regions)

    def copy(self, source: str, target: str) -> None:
        shutil.copyfile(self.root / source, self.path(target))
        self.copies.add(target)

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        self.path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write_rows(self, name: str, rows: Sequence[Sequence[str]]) -> None:
        with self.path(name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def write_aitex(root: Path) -> Expected:
    """One image has two masks, one none, one an empty mask; one is narrower; one code has two digits."""
    to = _Folder(root, "Aitex", "AITEX", (160, 48), "L")
    pair = (to.disc(0.2, 0.5, 7), to.disc(0.8, 0.4, 8))
    marks: dict[str, tuple[Mask, ...]] = {"0001_002_00": (to.disc(0.3, 0.5),), "0010_006_02": (to.line(0.2, 0.7),)}
    for stem, masks in (marks | {"0044_019_04": pair, "0100_025_08": (), "0106_010_03": (to.blank(),)}).items():
        for number, mask in enumerate(masks, start=1):
            to.save_mask(f"Mask_images/{stem}_mask{number if len(masks) > 1 else ''}.png", mask)
        union = np.logical_or.reduce(masks) if masks and masks[0].any() else None
        to.add(f"Defect_images/{stem}.png", stem.split("_")[1], True, union)
    for name in ("2311694-2040n7u/0001_000_00", "2608691-202020u/0018_00_01", "2306881-210020u/0003_000_05"):
        to.add(f"NODefect_images/{name}.png", name.split("_")[1], False)
    to.size = (148, 48)
    mask = to.disc(0.6, 0.6)
    to.add("Defect_images/0094_027_05.png", "027", True, mask)
    to.save_mask("Mask_images/0094_027_05_mask.png", mask)
    return to.expected()


def write_cracktree200(root: Path) -> Expected:
    """The pictures are there twice, in colour and in gray."""
    to = _Folder(root, "CrackTree200", "cracktree200", (96, 72))
    for number, name in enumerate(("6192", "6233", "6280", "6728")):
        mask = to.line(0.2 + 0.1 * number, 0.8 - 0.1 * number)
        to.add(f"cracktree200rgb/{name}.jpg", "crack", True, mask)
        with Image.open(to.root / f"cracktree200rgb/{name}.jpg") as image:
            to.save(f"cracktree200gray/{name}.jpg", np.asarray(image.convert("L")))
        to.copies.add(f"cracktree200gray/{name}.jpg")
        to.save_mask(f"cracktree200_gt/{name}.png", mask)
    return to.expected()


def write_gaps384(root: Path) -> Expected:
    """Crops of 640 x 540, named by photo, row and column: three are of one photo."""
    to = _Folder(root, "GAPs", "GAPS384", (96, 81), "L")
    for number, name in enumerate(("0556_541_1", "0556_541_641", "0556_1_1", "0683_541_1", "1248_541_641")):
        mask = to.line(0.1 + 0.15 * number, 0.5)
        to.add(f"croppedimg/train_{name}.jpg", "crack", True, mask)
        to.save_mask(f"croppedgt/train_{name}.png", mask)
    return to.expected()


def write_crack500_full(root: Path) -> Expected:
    """Photos beside their masks, one of them upright, one named .JPG; the masks are RGB with grey edges."""
    to = _Folder(root, "Crack500", "CRACK500", (72, 128))
    names = {"train": ("20160222_080933.jpg", "20160222_163940.jpg"), "val": ("20160222_080850.jpg",)}
    for short, files in (names | {"test": ("20160329_094016.jpg", "IMG_1732.JPG")}).items():
        for number, name in enumerate(files):
            mask, around = (to.line(0.3, 0.2 + 0.3 * number, width) for width in (6, 9))
            to.add(f"{short}data/{name}", "crack", True, mask, {"val": "validation"}.get(short, short))
            levels = np.select([mask, around], [255, 90], 0).astype(np.uint8)
            to.save(f"{short}data/{name.split('.')[0]}_mask.png", np.repeat(levels[..., None], 3, axis=2))
            to.size = (128, 72)
    return to.expected()


def write_crack500_crops(root: Path) -> Expected:
    """Crops beside their masks of the same stem, two of one photo; the lists name image and mask."""
    to = _Folder(root, "Crack500", "CRACK500", (96, 54))
    names = {"train": ("20160222_081011_1281_721", "20160222_081011_1_361"), "val": ("20160222_080850_1_361",)}
    names |= {"test": ("20160222_080933_361_1", "20160222_080933_721_641")}
    for short, stems in names.items():
        for number, stem in enumerate(stems):
            mask = to.line(0.7, 0.2 + 0.2 * number)
            to.add(f"{short}crop/{stem}.jpg", "crack", True, mask, {"val": "validation"}.get(short, short))
            to.save_mask(f"{short}crop/{stem}.png", mask)
        to.write_lines(f"{short}.txt", (f"{short}crop/{stem}.jpg {short}crop/{stem}.png" for stem in stems))
    return to.expected()


# Stems in collections of crack sets. The first two of each subset that is cut from photos are of one photo.
_RISSBILDER = ("9S6A2782_312_1490_2152_2793", "9S6A2782_0_0_3840_5760", "9S6A2826_985_495_2477_3280")
_VOLKER = ("DSC01612_8_444_1816_1750", "DSC01612_0_0_1824_2736", "DSC01703_0_0_1824_2736")
CRACK_STEMS = {
    "Rissbilder": [f"Rissbilder_for_Florian_{name}" for name in (*_RISSBILDER, "9S6A3130_1287_428_2006_2550")],
    "Volker": [f"Volker_{name}" for name in (*_VOLKER, "DSC01635_856_143_1514_1524")],
    "Eugen_Miller": [f"Eugen_Muller_{name}" for name in ("9360_99_556_518_594", "9360_0_0_518_594", "9362_1_2_61_48")],
    "CrackTree200": ["cracktree200_6233", "cracktree200_6280", "cracktree200_6728"],
    "GAPs": [f"GAPS384_train_{name}" for name in ("0556_541_1", "0556_541_641", "1248_541_641")],
    "Crack500": [f"CRACK500_2016030{n}" for n in ("7_164400_1281_721", "7_164400_1_361", "8_073532_1921_721")],
    "CFD": ["CFD_001"],
    "DeepCrack": ["DeepCrack_11123"],
}
NON_CRACK = "noncrack_noncrack_concrete_wall_12_1.jpg"


def write_conglomerate(root: Path, subset: str, folder: str, splits: tuple[str, str], pooled: bool) -> Expected:
    """Square pictures of many sets in one tree, told apart by the start of the name; the subset's last is in test.

    `pooled`: every file lies once more in `images` and `masks`. Of the other sets there is one picture each, and one
    of a wall without a crack, whose name ends in .jpg.jpg: they are none of the subset's.
    """
    to = _Folder(root, subset, folder, (64, 64))
    others = [stems[0] for name, stems in CRACK_STEMS.items() if name != subset]
    for number, stem in enumerate([*CRACK_STEMS[subset], *others, NON_CRACK]):
        split = "test" if stem == CRACK_STEMS[subset][-1] else "train"
        mask = to.blank() if stem == NON_CRACK else to.line(0.15, 0.1 + 0.07 * number)
        image, label = (f"{splits[split == 'test']}/{kind}/{stem}.jpg" for kind in ("images", "masks"))
        if stem in CRACK_STEMS[subset]:
            to.add(image, "crack", True, mask, split)
        else:
            to.picture(image, mask)
        to.save_mask(label, mask)
        if pooled:
            to.copy(image, f"images/{stem}.jpg")
            to.copy(label, f"masks/{stem}.jpg")
    return to.expected()


def write_crackseg9k(root: Path, subset: str) -> Expected:
    """Two unpacked volumes side by side: images in both, all masks and the two lists in the first."""
    to = _Folder(root, subset, "CrackSeg9k", (64, 64))
    first, names = "Final-Dataset-Vol1", [f"{stem}.png" for stem in (*CRACK_STEMS[subset], CRACK_STEMS["Crack500"][0])]
    for number, name in enumerate(names):
        image = f"Final-Dataset-Vol2/Images-2/{name}" if number == 2 else f"{first}/Images/{name}"
        mask = to.line(0.8, 0.1 + 0.2 * number)
        if number < 4:
            to.add(image, "crack", True, mask, "test" if number == 3 else "train")
        else:
            to.picture(image, mask)
        to.save_mask(f"{first}/Final_Masks/Masks/{name}", mask)
    to.write_lines(f"{first}/Final_Masks/train.txt", names[:3])
    to.write_lines(f"{first}/Final_Masks/test.txt", names[3:])
    return to.expected()


def write_visa(root: Path) -> Expected:
    """Masks hold the numbers of the object's defect types and look black; a label may name two types."""
    to = _Folder(root, "VisA", "VisA", (96, 88))
    two = {"chunk of wax missing": (1, to.disc(0.3, 0.4, 12))} | {"weird candle wick": (3, to.disc(0.7, 0.7, 6))}
    anomalies = {"candle": [two, {"other": (8, to.disc(0.5, 0.5))}], "pcb1": [{"missing": (4, to.disc(0.6, 0.3))}]}
    normals = {"candle": ("0836", "0999"), "pcb1": ("0000", "0001"), "cashew": ("001",)}
    splits = [("object", "split", "label", "image", "mask")]
    for name, stems in normals.items():
        rows, data = [("image", "label", "mask")], f"{name}/Data"
        for number, stem in enumerate(stems):
            image, split = f"{data}/Images/Normal/{stem}.JPG", ("train", "test")[number]
            to.add(image, "normal", False, split=split)
            rows.append((image, "normal", ""))
            splits.append((name, split, "normal", image, ""))
        for number, types in enumerate(anomalies.get(name, [])):
            image, label = f"{data}/Images/Anomaly/00{number}.JPG", f"{data}/Masks/Anomaly/00{number}.png"
            to.add_regions(image, True, {word: mask for word, (_, mask) in types.items()}, "test")
            to.save(label, np.sum([value * mask for value, mask in types.values()], axis=0).astype(np.uint8))
            rows.append((image, ",".join(types), label))
            splits.append((name, "test", "anomaly", image, label))
        to.write_rows(f"{name}/image_anno.csv", rows)
    to.write_rows("split_csv/1cls.csv", splits)
    return to.expected()


def write_kolektorsdd(root: Path) -> Expected:
    """Eight pictures of each part, most with an empty label; their heights differ."""
    to = _Folder(root, "KolektorSDD", "KolektorSDD", (48, 119), "L")
    for name in ("kos01/Part0", "kos01/Part1", "kos01/Part2", "kos02/Part0", "kos02/Part5", "kos50/Part7"):
        to.size, defective = (48, 117 + int(name[-1])), name in ("kos01/Part2", "kos02/Part5")
        mask = to.line(0.4, 0.5) if defective else to.blank()
        to.add(f"{name}.jpg", "defect" if defective else "", defective, mask)
        to.save_mask(f"{name}_label.bmp", mask)
    return to.expected()


def write_kolektorsdd2(root: Path) -> Expected:
    """Normal images have an empty mask; sizes differ; one pair lies there twice, as "(copy)"."""
    to = _Folder(root, "KolektorSDD2", "KolektorSDD2", (48, 132))
    for name in ("train/10000", "train/10301", "train/12331", "test/20000", "test/20006"):
        to.size, defective = (48 + int(name[-1]), 133), name in ("train/10301", "test/20006")
        mask = to.disc(0.5, 0.3) if defective else to.blank()
        to.add(f"{name}.png", "defect" if defective else "", defective, mask, name.split("/")[0])
        to.save_mask(f"{name}_GT.png", mask)
    to.copy("train/10301.png", "train/10301 (copy).png")
    to.copy("train/10301_GT.png", "train/10301_GT (copy).png")
    return to.expected()


def write_liaci(root: Path) -> Expected:
    """One bitmap a class and image, most of them empty; parts of the ship have bitmaps too and are no defects.

    Whether marine growth is a defect is the reader's to say: an image with nothing else has `is_defective` None.
    """
    to = _Folder(root, "LIACI", "LIACi_dataset_pretty", (112, 63))
    ship = {"ship_hull": to.line(0.5, 0.5, 50), "anode": to.disc(0.9, 0.5, 5)}
    empty = ["bilge_keel", "over_board_valves", "propeller", "sea_chest_grating"]
    empty += ["corrosion", "defect", "marine_growth", "paint_peel"]
    images: list[dict[str, Mask]] = [{"corrosion": to.disc(0.3, 0.5)}, {"defect": to.line(0.4, 0.6)}, {}]
    images.append({"paint_peel": to.disc(0.6, 0.5, 14), "corrosion": to.disc(0.2, 0.4, 8)})
    images.append({"marine_growth": to.disc(0.5, 0.6, 15)})
    rows = [("", "file_name", "split")]
    for number, regions in enumerate(images, start=1):
        name, split = f"image_{number:04}", ("train", "test")[number % 2]
        to.add_regions(f"images/{name}.jpg", None if "marine_growth" in regions else bool(regions), regions, split)
        for class_name, mask in (dict.fromkeys(empty, to.blank()) | ship | regions).items():
            to.save_mask(f"masks/{class_name}/{name}.bmp", mask)
        rows.append((str(number - 1), f"{name}.jpg", split))
    to.write_rows("train_test_split.csv", rows)
    return to.expected()


def write_rsdds(root: Path, subset: str, folder: str) -> Expected:
    """Every strip has a defect; the masks are JPEG files of the image's name."""
    to = _Folder(root, subset, folder, (48, 160), "L")
    for number in range(1, 5):
        mask = to.disc(0.5, 0.15 * number + 0.1, 7) | to.disc(0.4, 0.9, 6)
        to.add(f"Rail surface images/rail_{number}.jpg", "defect", True, mask)
        to.save_mask(f"GroundTruth/rail_{number}.jpg", mask)
    return to.expected()


def write_neu_cls(root: Path) -> Expected:
    """Only the name says what is to be seen; nothing says where."""
    to = _Folder(root, "NEU", "NEU-CLS", (64, 64), "L")
    for code in ("Cr", "In", "Pa", "PS", "RS", "Sc"):
        for number in (1, 300):
            to.add(f"{code}_{number}.bmp", code, True)
    return to.expected()


def write_bsdata(root: Path) -> Expected:
    """labelme files with the image inside; an image without one is not normal, only not annotated.

    The polygons are rectangles; the expected masks hold their edges.
    """
    to = _Folder(root, "BSData", "BSData", (112, 50))
    boxes = {"01_200828110014_277500_315_crop_2": [(20, 12, 40, 30)], "01_200907232354_560000_000_crop_1": []}
    boxes |= {"01_200902053521_585000_090_crop_2": [(10, 8, 30, 20), (60, 25, 90, 44)]}
    for stem, found in boxes.items():
        mask = to.blank()
        shapes: list[dict[str, object]] = []
        for x0, y0, x1, y1 in found:
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
            points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
            shapes.append({"label": "Pitting", "points": points, "shape_type": "polygon", "flags": {}})
        to.add(f"data/{stem}.jpg", *(("Pitting", True, mask) if found else ("", None)))
        content = base64.b64encode(to.path(f"data/{stem}.jpg").read_bytes()).decode()
        data: dict[str, object] = {"version": "4.5.6", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.jpg"}
        data |= {"imageData": content, "imageHeight": 50, "imageWidth": 112}
        if found:
            to.write_lines(f"label/{stem}.json", [json.dumps(data, indent=2)])
    return to.expected()


def _add_mvtec_folders(to: _Folder, prefix: str, defects: Sequence[str], suffix: str, official: bool) -> None:
    for split in ("train", "test"):
        to.add(f"{prefix}{split}/good/000.png", "good", False, split=split if official else None)
    for step, defect in enumerate(defects):
        for number in range(2):
            mask = to.disc(0.3 + 0.3 * step, 0.4 + 0.3 * number)
            to.add(f"{prefix}test/{defect}/{number:03}.png", defect, True, mask, "test" if official else None)
            to.save_mask(f"{prefix}ground_truth/{defect}/{number:03}{suffix}.png", mask)


def write_mvtec(root: Path) -> Expected:
    """The same numbers occur in every folder; some objects are gray."""
    to = _Folder(root, "MVTec-AD", "mvtec_anomaly_detection", (80, 80))
    for name, defect in {"bottle": "broken_large", "screw": "thread_side", "toothbrush": "defective"}.items():
        to.mode = "L" if name == "screw" else "RGB"
        _add_mvtec_folders(to, f"{name}/", (defect,), "_mask", official=True)
        to.write_lines(f"{name}/readme.txt", ["Attribution"])
    return to.expected()


def write_authors(root: Path, subset: str, defects: Sequence[str], suffix: str) -> Expected:
    """The authors' layout; the names of masks end in `suffix`; its folders are no split of the set's owner."""
    to = _Folder(root, subset, subset.replace("-", ""), (72, 72) if suffix else (80, 72))
    _add_mvtec_folders(to, "", defects, suffix, official=False)
    return to.expected()


# Subset -> names chosen here for its defect folders. In the authors' code OUC-Crack is OUCCrack.
AUTHORS = {
    **dict.fromkeys(("CFD", "Crack500", "CrackTree200", "DeepCrack", "Eugen_Miller", "GAPs"), ("crack",)),
    **dict.fromkeys(("OUC-Crack", "Rissbilder", "Volker"), ("crack",)),
    **dict.fromkeys(("KolektorSDD", "KolektorSDD2", "RSDD", "RSDD2"), ("defect",)),
    "Aitex": ("broken_end", "nep"),
    "BSData": ("pitting",),
    "LIACI": ("corrosion", "paint_peel"),
    "MT": ("blowhole", "uneven"),
    "NEU": ("crazing", "scratches"),
    "RubberTires": ("bubble", "foreign_object"),
}
_POOLED = ("Rissbilder", "Volker", "Eugen_Miller", "CrackTree200", "GAPs", "Crack500")
_pooled = partial(write_conglomerate, folder="crack_segmentation_dataset", splits=("train", "test"), pooled=True)
_VIRGINIA = "Conglomerate Concrete Crack Detection"
_virginia = partial(write_conglomerate, folder=_VIRGINIA, splits=("Train", "Test"), pooled=False)

LAYOUTS: dict[str, tuple[str, Callable[[Path], Expected]]] = {
    "aitex": ("Aitex", write_aitex),
    "cracktree200": ("CrackTree200", write_cracktree200),
    "gaps384": ("GAPs", write_gaps384),
    "crack500_full": ("Crack500", write_crack500_full),
    "crack500_crops": ("Crack500", write_crack500_crops),
    "visa": ("VisA", write_visa),
    "kolektorsdd": ("KolektorSDD", write_kolektorsdd),
    "kolektorsdd2": ("KolektorSDD2", write_kolektorsdd2),
    "liaci": ("LIACI", write_liaci),
    "mvtec": ("MVTec-AD", write_mvtec),
    "rsdd": ("RSDD", partial(write_rsdds, subset="RSDD", folder="Type-I RSDDs dataset")),
    "rsdd2": ("RSDD2", partial(write_rsdds, subset="RSDD2", folder="Type-II RSDDs dataset")),
    "neu_cls": ("NEU", write_neu_cls),
    "bsdata": ("BSData", write_bsdata),
    **{f"conglomerate/{name}": (name, partial(_pooled, subset=name)) for name in _POOLED},
    **{f"vt_conglomerate/{name}": (name, partial(_virginia, subset=name)) for name in _POOLED[:3]},
    **{f"crackseg9k/{name}": (name, partial(write_crackseg9k, subset=name)) for name in _POOLED[:2]},
    **{
        f"authors/{name}{end}": (name, partial(write_authors, subset=name, defects=defects, suffix=end))
        for name, defects in AUTHORS.items()
        for end in ("", "_mask")
    },
}
