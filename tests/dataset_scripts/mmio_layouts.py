"""Small generated copies of MMIO's public sets in the folders, names and file types in which they are distributed.

Not a test: fixtures for the assembly, written from public descriptions and not from the table of scenes, so that the
two check each other. The pictures are noise, most of them smaller than the originals. "(guess)": no source says so.

| layout | what was read to describe it |
| --- | --- |
| neu_det/flat | siddhartamukherjee/NEU-DET-Steel-Surface-Defect-Detection (`<filename>` may lack .jpg) |
| neu_det/kaggle | five users of kaustubhdikshit/neu-surface-defect-database: crazing_240.xml lies in the other split |
| gc10_det | three audits of alex000kim/gc10det: `lable`, "10_yaozhed", an object "d", 12 names twice, 6 without XML |
| x_sdd | Fighter20092392/X-SDD-A-New-benchmark |
| aluminium | three readers of guangdong_round2_train_20181011; one of them counts JSON files that do not parse |
| gdxray | jcsombria/tfg-gbv; readers of Castings.zip that use the corners as they are; MATLAB's would count from 1 |
| casting/* | yukyunglee/LG_ES_CNN_2; users of Kaggle ravirajsinh45/real-life-industrial-dataset-of-casting-product |
| riawelc/* | seven readers of "DB - Copy" and Dataset_partitioned; stefyste/RIAWELC's history for lp424 |
| bsdata | 2Obe/BSData; the split of its image_data.json is the authors' |
| deeppcb/spaces, /commas | tangsanli5201/DeepPCB, whose files have spaces and whose README has commas |
| pku_pcb | three descriptions of PCB_DATASET: rotated pictures have the names of the upright ones |
| ssgd/release | users of the archive: pinyin XML beside the images, English names in annotations_lb101/lb101.json |
| ssgd/configs | VincentHancoder/SSGD configs_defect_screen, mmdet/datasets/ssgd.py: pinyin names |
| kolektorsdd*, aitex | tadd_layouts.py |
| rsdd/* | tadd_layouts.py: both kinds of files are JPEG and have equal names |
| mvtec/* | dataset-ninja/mvtec-AD src/convert.py; the defect types of the paper |
| tile/round1 | a copy of the data's Readme.md: corners [left, top, right, bottom], one entry a box |
| tile/round2 | readers of tile_round2_train_20210204: templates `<name>_t.jpg` in train_template_imgs, 8 categories |
| wood | three readers of Zenodo 4694695: "Bouding Boxes", tabs, corners as fractions, some with decimal commas |
| mt | abin24/Magnetic-tile-defect-datasets. |
"""

import base64
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tests.dataset_scripts import tadd_layouts

Mask = NDArray[np.bool_]
Corners = tuple[float, float, float, float]
NamedBox = tuple[str, Corners]
# What is expected of an image that the set shows without a defect but does not call normal.
SOUND: dict[str, Any] = {"is_defective": False, "may_know_less": True}


@dataclass(frozen=True)
class ExpectedImage:
    """What a reader must find out about one image.

    Attributes:
        boxes: Category in the set's own words and [x, y, width, height] in pixels from 0.
        category: Of an image that is defective and has no boxes, "" where nobody says.
        is_defective: None where nobody says.
        split: The set's own, in the words of the schema; None where it has none.
        may_know_less: Whether a careful reader may also find no boxes, no category, or not take the image at all.
    """

    boxes: Sequence[NamedBox] = ()
    category: str = ""
    is_defective: bool | None = None
    split: str | None = None
    may_know_less: bool = False


@dataclass
class Expected:
    """What a reader must find in the raw folder: every image, by its path in there.

    Attributes:
        images: All images of the set.
        ignored: Further image files that may be taken or not: copies of others.
        noted: Parts of paths of files that are wrong, of which problems may be reported.
        split_is_official: Whether the split is the owner's and in the files, not that of a mirror.
        tolerance: Pixels by which the sources leave a box open.
    """

    images: dict[str, ExpectedImage] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    noted: tuple[str, ...] = ()
    split_is_official: bool = True
    tolerance: float = 0.01


class _Folder:
    """A set's folder that is being written. `size` (width, height) and `mode` are those of the next picture."""

    def __init__(self, root: Path, folder: str, size: tuple[int, int], mode: str = "L") -> None:
        self.root, self.folder, self.size, self.mode = root / folder, folder, size, mode
        self.rng = np.random.default_rng(zlib.crc32(folder.encode()))
        self.images: dict[str, ExpectedImage] = {}

    def expected(self, **rest: Any) -> Expected:
        return Expected({f"{self.folder}/{name}": image for name, image in self.images.items()}, **rest)

    def path(self, name: str) -> Path:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        return self.root / name

    def save(self, name: str, pixels: NDArray[np.uint8]) -> None:
        Image.fromarray(pixels).save(self.path(name), quality=95)  # PNG and BMP ignore the quality

    def save_mask(self, name: str, mask: Mask) -> None:
        self.save(name, np.where(mask, 255, 0).astype(np.uint8))

    def picture(self, name: str) -> None:
        gray = self.rng.integers(60, 200, self.size[::-1], dtype=np.uint8)
        self.save(name, gray if self.mode == "L" else np.repeat(gray[..., None], 3, axis=2))

    def add(self, name: str, boxes: Sequence[NamedBox] = (), **rest: Any) -> None:
        """Write a picture and note what is expected of it; its annotation files are the caller's to write."""
        self.picture(name)
        self.images[name] = ExpectedImage(boxes, **({"is_defective": True} if boxes else {}) | rest)

    def add_masked(self, name: str, mask_name: str, category: str, boxes: Sequence[Corners], **rest: Any) -> None:
        """Write a picture and a mask that is white in the boxes, in pixels from 0."""
        self.add(name, [(category, box) for box in boxes], **({} if boxes else {"category": category}) | rest)
        self.save_mask(mask_name, self.mask(boxes))

    def mask(self, boxes: Iterable[Corners]) -> Mask:
        filled = np.zeros(self.size[::-1], bool)
        for x, y, width, height in boxes:
            filled[int(y) : int(y + height), int(x) : int(x + width)] = True
        return filled

    def write(self, name: str, text: str) -> None:
        self.path(name).write_text(text, encoding="utf-8", newline="")

    def write_json(self, name: str, data: object, **options: Any) -> None:
        self.write(name, json.dumps(data, **options))

    def write_voc(self, name: str, filename: str, objects: Iterable[tuple[str, Corners]], depth: int = 3) -> None:
        """`objects`: name and xmin, ymin, xmax, ymax as they are to stand in the file."""
        size = f"<width>{self.size[0]}</width><height>{self.size[1]}</height><depth>{depth}</depth>"
        lines = [f"<annotation><folder>x</folder><filename>{filename}</filename><size>{size}</size>"]
        for label, corners in objects:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            lines.append(f"<object><name>{label}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>")
        self.write(name, "\n\t".join([*lines, "</annotation>\n"]))


# xmin, ymin, xmax, ymax counted from 1 with both corners in the box, and the same as COCO counts.
FIRST, FIRST_COCO = (1, 1, 200, 200), (0, 0, 200, 200)
SECOND, SECOND_COCO = (67, 13, 114, 51), (66, 12, 48, 39)
THIRD, THIRD_COCO = (20, 65, 20, 199), (19, 64, 1, 135)
NEU: dict[str, list[tuple[str, Corners, Corners]]] = {
    "crazing_1": [("crazing", FIRST, FIRST_COCO)],
    "rolled-in_scale_12": [("rolled-in_scale", SECOND, SECOND_COCO), ("rolled-in_scale", THIRD, THIRD_COCO)],
    "patches_104": [("patches", SECOND, SECOND_COCO), ("inclusion", FIRST, FIRST_COCO)],
    "pitted_surface_125": [("pitted_surface", THIRD, THIRD_COCO)],
    "inclusion_9": [("inclusion", THIRD, THIRD_COCO)],
    "scratches_300": [("scratches", SECOND, SECOND_COCO)],
}


def write_neu_det(root: Path, kaggle: bool) -> Expected:
    """Colour files of gray pictures; an image of two classes; XML without .jpg, and on Kaggle in the other split."""
    to = _Folder(root, "NEU-DET", (200, 200), "RGB")
    for stem, objects in NEU.items():
        split = "validation" if stem in ("scratches_300", "inclusion_9") else "train"
        kind = stem.rpartition("_")[0]
        if kaggle:
            image, xml = f"{split}/images/{kind}/{stem}.jpg", f"{split}/annotations/{stem}.xml"
        elif split == "validation":
            image, xml = f"Validation_Images/{stem}.jpg", f"Validation_Annotations/{stem}.xml"
        else:
            image, xml = f"IMAGES/{stem}.jpg", f"ANNOTATIONS/{stem}.xml"
        to.add(image, [(name, box) for name, _, box in objects], split=split)
        filename = stem if kind in ("patches", "pitted_surface") else f"{stem}.jpg"
        to.write_voc(xml, filename, [(name, corners) for name, corners, _ in objects], depth=1)
    if kaggle:
        boxes = [("crazing", SECOND_COCO)]
        to.add("train/images/crazing/crazing_240.jpg", boxes, split="train", may_know_less=True)
        to.write_voc("validation/annotations/crazing_240.xml", "crazing_240.jpg", [("crazing", SECOND)], depth=1)
    return to.expected(split_is_official=False, noted=("crazing_240",))


GC10 = {
    "1": ("1_chongkong", "punching hole"),
    "2": ("2_hanfeng", "weld line"),
    "3": ("3_yueyawan", "crescent gap"),
    "4": ("4_shuiban", "water spot"),
    "5": ("5_youban", "oil spot"),
    "6": ("6_siban", "silk spot"),
    "7": ("7_yiwu", "inclusion"),
    "8": ("8_yahen", "rolled pit"),
    "9": ("9_zhehen", "crease"),
    "10": ("10_yaozhed", "waist folding"),
}


def write_gc10(root: Path) -> Expected:
    """Numbers as folders; all XML in one; "10_yaozhed" and, once (guess), "10_yaozhe"; the folder is not the object's.

    The object "d" is a slip; an image without XML, and one whose XML has no object, show what their folder says.
    """
    to = _Folder(root, "GC10-DET", (128, 62))

    def add(folder: str, stem: str, objects: Sequence[tuple[str, Corners, Corners]], **rest: Any) -> None:
        words = dict(GC10.values()) | {"10_yaozhe": "waist folding"}
        boxes = [(words[word], box) for word, _, box in objects if word in words]
        to.add(f"{folder}/{stem}.jpg", boxes, **rest)
        to.write_voc(f"lable/{stem}.xml", f"{stem}.jpg", [(word, corners) for word, corners, _ in objects])

    for folder, (word, _) in GC10.items():
        add(folder, f"img_{int(folder):02}_3402617700_00001", [(word, (21, 11, 60, 40), (20, 10, 40, 30))])
    edge = ("10_yaozhe", (0, 5, 140, 20), (0, 4, 128, 16))  # leaves the image on both sides
    add("10", "img_08_436165200_00010", [edge, ("6_siban", (100, 30, 120, 62), (99, 29, 21, 33))])
    add(
        "2",
        "img_07_436168300_01134",
        [("2_hanfeng", (5, 1, 30, 62), (4, 0, 26, 62)), ("d", (1, 1, 9, 9), (0, 0, 9, 9))],
    )
    add("4", "img_04_4406743300_00001", [], category="water spot", is_defective=True, may_know_less=True)
    both = [("3_yueyawan", (50, 2, 90, 30), (49, 1, 41, 29)), ("8_yahen", (9, 40, 30, 50), (8, 39, 22, 11))]
    add("3", "img_03_425503100_00018", both, may_know_less=True)
    to.images["8/img_03_425503100_00018.jpg"] = to.images["3/img_03_425503100_00018.jpg"]
    shutil.copyfile(to.path("3/img_03_425503100_00018.jpg"), to.path("8/img_03_425503100_00018.jpg"))
    to.add("5/img_02_425506300_00018.jpg", category="oil spot", is_defective=True, may_know_less=True)
    noted = ("img_07_436168300_01134", "img_04_4406743300_00001", "img_03_425503100_00018", "img_02_425506300_00018")
    return to.expected(noted=noted)


def write_x_sdd(root: Path) -> Expected:
    """Folders with spaces, two file types, three sizes, two equal pictures of one class."""
    to = _Folder(root, "X-SDD", (128, 128), "RGB")
    classes = ["finishing roll printing", "iron sheet ash", "oxide scale of plate system", "red iron"]
    classes += ["oxide scale of temperature system", "slag inclusion", "surface scratch"]
    for number, name in enumerate(classes):
        to.size = ((128, 128), (122, 128), (130, 128))[number % 3]
        for suffix in (".jpg", ".png"):
            to.add(f"X-SDD/datas/{name}/{number}001{suffix}", category=name, is_defective=True)
    source, copy = "X-SDD/datas/red iron/3001.jpg", "X-SDD/datas/red iron/3900.jpg"
    to.images[copy] = to.images[source]
    shutil.copyfile(to.path(source), to.path(copy))
    return to.expected()


def _corners_of(x: float, y: float, width: float, height: float, first: int = 0) -> list[list[float]]:
    """The four corners of a box, clockwise from the one at `first`."""
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
    return corners[first:] + corners[:first]


def write_aluminium(root: Path) -> Expected:
    """labelme files of an old version: no image size, no shape type, any corner first. Some do not parse."""
    to = _Folder(root, "guangdong_round2_train_20181011", (128, 96), "RGB")

    def add(folder: str, stem: str, shapes: Sequence[NamedBox], boxes: Sequence[NamedBox] | None = None) -> None:
        to.add(f"{folder}/{stem}.jpg", shapes if boxes is None else boxes)
        content = base64.b64encode(to.path(f"{folder}/{stem}.jpg").read_bytes()).decode()
        style = {"line_color": None, "fill_color": None}
        found = [
            {"label": label, **style, "points": _corners_of(*box, first=number % 4)}
            for number, (label, box) in enumerate(shapes)
        ]
        data = {"flags": {}, "shapes": found, "lineColor": [0, 255, 0, 128], "fillColor": [255, 0, 0, 128]}
        path = f"C:\\data\\{stem}.jpg"
        to.write_json(f"{folder}/{stem}.json", data | {"imagePath": path, "imageData": content}, ensure_ascii=False)

    names = ("不导电", "擦花", "角位漏底", "桔皮", "漏底", "喷流", "漆泡", "起坑", "杂色", "脏点")
    for number, name in enumerate(names):
        stem = f"{name}2018083017{number:02}30对照样本"
        add(f"单瑕疵图片/{name}", stem, [(name, (4 * number, 10, 20 + number, 30)), (name, (70, 50, 9, 40))])
    several = [("漆泡", (10, 10, 12, 13)), ("擦花", (40, 0, 50, 96)), ("脏点", (90.5, 20.25, 6.5, 7.75))]
    add("多瑕疵图片", "多瑕疵20180906091547", several)
    add("多瑕疵图片", "多瑕疵20180906091548", [("起坑", (120, 80, 15, 20))], [("起坑", (120, 80, 8, 16))])
    to.add("无瑕疵图片/无瑕疵20180901104310.jpg", is_defective=False)
    to.add("单瑕疵图片/桔皮/桔皮20180901.jpg", category="桔皮", is_defective=True, may_know_less=True)
    to.write("单瑕疵图片/桔皮/桔皮20180901.json", '{"flags": {}, "shapes": [')
    return to.expected(noted=("桔皮20180901",))


def write_gdxray(root: Path) -> Expected:
    """Rows `image x1 x2 y1 y2`; an image and a series without rows are not normal; a row twice; a stray file."""
    to = _Folder(root, "GDXray", (96, 72))
    rows = {1: [(30, 43, 40, 62), (31, 46, 12, 17)], 3: [(5, 20, 6, 26)], 10: [(60, 75, 48, 70)]}
    lines = []
    for number in (1, 2, 3, 10):
        found = rows.get(number, [])
        boxes = [("defect", (x1, y1, x2 - x1, y2 - y1)) for x1, x2, y1, y2 in found]
        to.add(f"Castings/C0041/C0041_{number:04}.png", boxes)
        lines += ["".join(f"{value:16.7e}" for value in (number, *row)) + "\n" for row in found]
    to.write("Castings/C0041/ground_truth.txt", "".join([*lines, lines[0]]))
    to.write("Castings/C0041/ground_truth.txt;", "".join(lines[:1]))
    to.add("Castings/C0001/C0001_0001.png", [("defect", (10, 20, 12, 20))])
    to.write("Castings/C0001/ground_truth.txt", "".join(f"{value:16.7e}" for value in (1, 10, 22, 20, 40)) + "\n")
    to.add("Castings/C0011/C0011_0001.png")
    return to.expected(tolerance=1.01)


def write_casting(root: Path, kaggle: bool) -> Expected:
    """One name for different pictures of both splits; Kaggle's archive holds other pictures in 512 x 512 as well."""
    to = _Folder(root, "Casting", (100, 100), "RGB")
    for split in ("train", "test"):
        folder = f"casting_data/casting_data/{split}" if kaggle else split
        for name in ("cast_def_0_108", "cast_def_0_1153"):
            to.add(f"{folder}/def_front/{name}.jpeg", category="def_front", is_defective=True, split=split)
        for name in ("cast_ok_0_1020", "cast_ok_0_108"):
            to.add(f"{folder}/ok_front/{name}.jpeg", is_defective=False, split=split)
    if kaggle:
        to.size, folder = (128, 128), "casting_512x512/casting_512x512"
        image = f"{folder}/def_front/cast_def_0_1.jpeg"
        to.add(image, category="def_front", is_defective=True, may_know_less=True)
        to.add(f"{folder}/ok_front/cast_ok_0_1.jpeg", **SOUND)
    return to.expected()


def write_riawelc(root: Path, folder: str) -> Expected:
    """Italian folders whose meaning the sources dispute, names with brackets, one with " - Copia" of equal pixels."""
    to = _Folder(root, "RIAWELC", (112, 112))
    splits = {"training": "train", "validation": "validation", "testing": "test"}
    for number, (name, split) in enumerate(splits.items()):
        for kind in ("Difetto1", "Difetto2", "Difetto4"):
            image = f"{folder}/{name}/{kind}/bam5_Img{number}_A80_S1_[11][4].png"
            to.add(image, category=kind, is_defective=True, split=split)
        to.add(f"{folder}/{name}/NoDifetto/RRT-09R_Img1_A80_S9_[2][2{number}].png", is_defective=False, split=split)
    source = f"{folder}/testing/Difetto2/bam5_Img2_A80_S1_[11][4].png"
    copy = source.replace(".png", " - Copia.png")
    to.images[copy] = to.images[source]
    shutil.copyfile(to.path(source), to.path(copy))
    return to.expected()


def write_riawelc_lp424(root: Path) -> Expected:
    """An early upload: images without a class, some in "defect1", files without extension."""
    to = _Folder(root, "RIAWELC", (112, 112))
    for name in ("RRT-13R_Img1_A80_S3_[10][11]", "RRT-13R_Img1_A80_S4_[10][42]"):
        to.add(f"Training/{name}.png", may_know_less=True)
    image = "Training/defect1/RRT-13R_Img1_A80_S1_[5][6].png"
    to.add(image, category="defect1", is_defective=True, may_know_less=True)
    to.write("Training/aaaaa", "\n")
    to.write("Training/defect1/aaaa", "\n")
    return to.expected()


def write_bsdata(root: Path) -> Expected:
    """Polygons with the image as text; an image without a file is not normal, only not annotated."""
    to = _Folder(root, "BSData", (113, 50), "RGB")
    polygons: dict[str, list[list[tuple[float, float]]]] = {
        "01_200902053521_585000_090_crop_2": [[(10, 8.5), (30.25, 9), (20, 20.75)], [(60, 25), (90, 44), (61.5, 40)]],
        "KGT2-S-346-A09_crop_0": [[(0, 0), (112.5, 0), (113, 50), (50, 49), (0, 30)]],
    }
    entries = []
    for stem, split in (("01_200907232354_560000_000_crop_1", None), *zip(polygons, ("train", "test"), strict=True)):
        found = polygons.get(stem, [])
        boxes: list[NamedBox] = []
        for xs, ys in (zip(*points, strict=True) for points in found):
            boxes.append(("Pitting", (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))))
        to.add(f"data/{stem}.jpg", boxes, split=split)
        entry: dict[str, Any] = {"filename": f"{stem}.jpg", "train_test_split": split, "type": 1, "wear_dev": []}
        entries.append(entry | {"annotations": f"{stem}.json" if found else None})
        if found:
            form: dict[str, Any] = {"label": "Pitting", "group_id": None, "shape_type": "polygon", "flags": {}}
            content = base64.b64encode(to.path(f"data/{stem}.jpg").read_bytes()).decode()
            data: dict[str, Any] = {"version": "4.5.6", "flags": {}}
            data["shapes"] = [form | {"points": points} for points in found]
            data |= {"imagePath": f"..\\data\\{stem}.jpg", "imageData": content, "imageHeight": 50, "imageWidth": 113}
            to.write_json(f"label/{stem}.json", data, indent=2)
    to.write_json("image_data.json", {"images": entries})
    return to.expected(split_is_official=False)


def write_deeppcb(root: Path, separator: str) -> Expected:
    """Tested images with their templates; the lists name files without `_test`, one of which is absent."""
    to = _Folder(root, "DeepPCB", (96, 96))
    types = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
    files = {"20085000": "train", "20085001": "train", "20085291": "test", "44000012": "test"}
    lists: dict[str, list[str]] = {"trainval.txt": [], "test.txt": []}
    for number, (stem, split) in enumerate(files.items()):
        group, to.mode = stem[:5], "RGB" if number == 1 else "L"
        found = [(kind, (7 * kind + number, 5 * kind, 7 * kind + 21, 5 * kind + 19)) for kind in range(1, 7 - number)]
        boxes = [(types[kind - 1], (x1, y1, x2 - x1, y2 - y1)) for kind, (x1, y1, x2, y2) in found]
        to.add(f"PCBData/group{group}/{group}/{stem}_test.jpg", boxes, split=split)
        to.add(f"PCBData/group{group}/{group}/{stem}_temp.jpg", is_defective=False, split=split, may_know_less=True)
        rows = "\n".join(separator.join(map(str, (*corners, kind))) for kind, corners in found)
        to.write(f"PCBData/group{group}/{group}_not/{stem}.txt", rows + "\n" * (number % 2))
        line = f"group{group}/{group}/{stem}.jpg group{group}/{group}_not/{stem}.txt"
        lists["test.txt" if split == "test" else "trainval.txt"].append(line)
    to.add("PCBData/group44000/44000/44000013_temp.jpg", **SOUND)
    lists["test.txt"].append("group44000/44000/44000099.jpg group44000/44000_not/44000099.txt")
    for name, lines in lists.items():
        to.write(f"PCBData/{name}", "\n".join(lines) + "\n")
    return to.expected(noted=("44000099", "44000013"))


def write_pku_pcb(root: Path) -> Expected:
    """Folders in capitals, object names not; the boxes are of the upright pictures and not of the rotated ones."""
    to = _Folder(root, "PCB_DATASET", (151, 79), "RGB")
    kinds = ("Missing_hole", "Mouse_bite", "Open_circuit", "Short", "Spur", "Spurious_copper")
    for number, kind in enumerate(kinds):
        word = kind.lower()
        stem = f"{(1, 4, 12)[number % 3]:02}_{word}_0{number + 1}"
        to.size = (151 - number, 79)
        objects = [(word, (10 + number, 9, 19 + number, 20)), (word, (60, 30, 60 + number, 79))]
        boxes = [(word, (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)) for _, (x1, y1, x2, y2) in objects]
        to.add(f"images/{kind}/{stem}.jpg", boxes)
        to.write_voc(f"Annotations/{kind}/{stem}.xml", f"{stem}.jpg", objects)
        to.size = (160, 120)
        rotated = f"rotation/{kind}_rotation/{stem}.jpg"
        to.add(rotated, category=word, is_defective=True, may_know_less=True)
        to.write(f"rotation/{kind}_angles.txt", f"{stem} 7\n")
    to.add("PCB_USED/01.JPG", **SOUND)
    return to.expected()


SSGD = {"crack": "liewen", "broken": "bengque", "spot": "baidian", "scratch": "huahen"}
SSGD |= {"light-leakage": "louguang", "blot": "wuzi", "broken-membrane": "pomo"}


def write_ssgd(root: Path, release: bool) -> Expected:
    """Two parts, whose numbers of images and boxes begin anew, and files of folds that repeat their entries.

    An image that a part's file lists without a box counts as normal (guess). The XML files of the release count from
    elsewhere than the JSON files (the owners' converter keeps xmin and adds 1 to the width).
    """
    to = _Folder(root, "SSGD", (150, 100))
    for part, words in (("lb101", [*SSGD][:5]), ("lb201", [*SSGD][3:])):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        folder = part if release else f"images_{part}"
        json_folder = f"annotations_{part}" if release else f"annotations/{part}"
        for number, names in enumerate(([words[0], words[1]], words[2:], []), start=1):
            stem = f"{part}_{number:04}"
            found = [(name, (10 * place + number, 7, 12, 20 + place)) for place, name in enumerate(names)]
            to.add(f"{folder}/{stem}.jpg", found, **({} if found else SOUND))
            images.append({"file_name": f"{stem}.jpg", "height": 100, "width": 150, "id": number})
            for name, (x, y, width, height) in found:
                outline = [corner for point in _corners_of(x, y, width, height) for corner in point]
                entry: dict[str, Any] = {"segmentation": outline, "area": width * height, "iscrowd": 0}
                entry |= {"bbox": [x, y, width, height], "category_id": [*SSGD].index(name) + 1, "image_id": number}
                annotations.append(entry | {"id": len(annotations) + 1, "ignore": 0})
            if release:
                corners = [(SSGD[name], (x, y, x + w - 1, y + h - 1)) for name, (x, y, w, h) in found]
                to.write_voc(f"{folder}/{stem}.xml", f"{stem}.jpg", corners or [("ok", (1, 1, 150, 100))])
        categories = [{"name": name if release else SSGD[name], "id": place} for place, name in enumerate(SSGD, 1)]
        for name, kept in ((part, {1, 2, 3}), ("train1", {1, 3}), ("val1", {2}), ("train2", {2}), ("val2", {1, 3})):
            own = [entry for entry in annotations if entry["image_id"] in kept]
            shown = [image for image in images if image["id"] in kept]
            data = {"images": shown, "annotations": own, "categories": categories}
            to.write_json(f"{json_folder}/{name}.json", data)
    return to.expected()


def from_tadd(root: Path, write: Callable[[Path], tadd_layouts.Expected]) -> Expected:
    """A layout of TADD, whose masks become the boxes of their 8-connected parts."""
    given, images = write(root), {}
    for path, image in given.images.items():
        boxes: list[NamedBox] = []
        if image.mask is not None:
            labels, _ = ndimage.label(image.mask, np.ones((3, 3)))
            for rows, columns in ndimage.find_objects(labels):
                size = (columns.stop - columns.start, rows.stop - rows.start)
                boxes.append((image.category, (columns.start, rows.start, *size)))
        category = image.category if image.is_defective and not boxes else ""
        images[f"{given.folder}/{path}"] = ExpectedImage(boxes, category, image.is_defective, image.split)
    return Expected(images, frozenset(f"{given.folder}/{path}" for path in given.copies))


def write_rsdd(root: Path, folder: str) -> Expected:
    """Masks are JPEG files of the image's name with faint noise; the edges of the parts lie between JPEG's blocks."""
    to = _Folder(root, folder, (48, 160))
    touching: list[Corners] = [(8, 40, 8, 8), (16, 48, 8, 8)]  # at a corner
    parts: list[list[Corners]] = [[(8, 16, 16, 24)], [(0, 80, 8, 8), (24, 120, 24, 40)], touching]
    for number, found in enumerate(parts, start=1):
        boxes: list[Corners] = [(8, 40, 16, 16)] if found is touching else found
        to.add(f"Rail surface images/rail_{number}.jpg", [("defect", box) for box in boxes])
        noise = to.rng.integers(0, 8, to.size[::-1])
        to.save(f"GroundTruth/rail_{number}.jpg", np.where(to.mask(found), 255 - noise, noise).astype(np.uint8))
    return to.expected()


MVTEC = {
    "leather": ("color", "cut", "fold", "glue", "poke"),
    "wood": ("color", "combined", "hole", "liquid", "scratch"),
}


def write_mvtec(root: Path, name: str) -> Expected:
    """The same numbers occur in every folder; two parts touch at a corner; "combined" is several unnamed defects."""
    to = _Folder(root, f"mvtec_anomaly_detection/{name}", (80, 80), "RGB")
    for split in ("train", "test"):
        to.add(f"{split}/good/000.png", is_defective=False, split=split)
    for number, defect in enumerate(MVTEC[name]):
        rest = {"split": "test", "may_know_less": defect == "combined"}
        image, mask = f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"
        to.add_masked(image, mask, defect, [(10 + number, 9, 20, 30), (60, 50, 20, 12)], **rest)
        to.add(f"test/{defect}/001.png", [(defect, (20, 20, 30, 25))], **rest)
        to.save_mask(f"ground_truth/{defect}/001_mask.png", to.mask([(20, 20, 10, 10), (30, 30, 20, 15)]))
    return to.expected()


TILES = ("edge", "corner", "white spot", "light block", "dark block", "aperture", "marker", "scratch")


def write_tiles(root: Path, second_round: bool) -> Expected:
    """One list of boxes by corners; an image that is not in it counts as normal (guess). Templates are no samples."""
    folder = "tile_round2_train_20210204" if second_round else "tile_round1_train_20201231"
    to = _Folder(root, folder, (128, 96), "RGB")
    entries: list[dict[str, Any]] = []
    ending = "_0" if second_round else ""
    for number in range(4):
        stem = f"22{number}_4{number}_t2020112513351827{number}_CAM{number % 3 + 1}{ending}"
        kinds = () if number == 3 else range(1 + number, 9 if second_round else 7, 2)
        found = [(kind, (12.25 * kind, 3 * kind, 12.25 * kind + 9.5, 3 * kind + 40 + number)) for kind in kinds]
        boxes = [(TILES[kind - 1], (x1, y1, x2 - x1, y2 - y1)) for kind, (x1, y1, x2, y2) in found]
        to.add(f"train_imgs/{stem}.jpg", boxes, **({} if boxes else SOUND))
        for kind, corners in reversed(found):
            entry: dict[str, Any] = {"name": f"{stem}.jpg", "image_height": 96, "image_width": 128}
            entries.append(entry | {"category": kind, "bbox": list(corners)})
        if second_round:
            to.add(f"train_template_imgs/{stem}_t.jpg", **SOUND)
    to.write_json("train_annos.json", entries, indent=4)
    return to.expected()


def write_wood(root: Path) -> Expected:
    """Fractions, some with decimal commas; labels in several cases; empty files of sound boards; an image without."""
    to = _Folder(root, "wood_surface_defects", (140, 51), "RGB")
    boards: dict[str, list[tuple[str, Corners]]] = {
        "100000010": [("Live_Knot", (0.125, 0.25, 0.375, 0.5)), ("Dead_Knot", (0.5, 0, 0.75, 1))],
        "100100011": [("Live_knot", (0.019286, 0.327148, 0.05, 0.463867)), ("resin", (0.9, 0.1, 1, 0.2))],
        "100200012": [("Marrow", (0, 0.4, 1, 0.6)), ("Quartzity", (0.1, 0.1, 0.2, 0.2)), ("Crack", (0.3, 0, 0.31, 1))],
        "100300013": [("knot_with_crack", (0.2, 0.2, 0.3, 0.4)), ("Knot_missing", (0.6, 0.7, 0.64, 0.9))],
        "100400014": [("Blue_stain", (0.2, 0.1, 0.8, 0.3)), ("overgrown", (0.25, 0.5, 0.3, 0.75))],
        "100500015": [],
    }
    for number, (stem, rows) in enumerate(boards.items()):
        to.size = (140 - number % 2, 51)
        image = f"Images{(1, 1, 2, 10)[number % 4]}/{stem}.bmp"
        width, height = to.size
        boxes = [
            (label.lower().replace("_", " "), (x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height))
            for label, (x1, y1, x2, y2) in rows
        ]
        to.add(image, boxes, **({} if rows else {"is_defective": False}))
        text = "".join("\t".join((label, *(f"{value:f}" for value in corners))) + "\n" for label, corners in rows)
        text = text.replace(".", ",") if number in (1, 3) else text
        to.write(f"Bouding Boxes/{stem}_anno.txt", text.replace("\n", "\r\n") if number > 1 else text)
        to.save(f"Semantic Maps/{stem}_segm.bmp", np.zeros((height, width, 3), np.uint8))
    to.add("Images10/100900019.bmp", may_know_less=True)
    return to.expected(noted=("100900019",))


def write_mt(root: Path) -> Expected:
    """Image and mask side by side; grey edges; an empty mask of an uneven tile, which is not normal."""
    to = _Folder(root, "MT", (73, 64))
    for number, kind in enumerate(("Blowhole", "Break", "Crack", "Fray", "Uneven")):
        to.size = (73 + number, 64 - number)
        stem = f"MT_{kind}/Imgs/exp{number}_num_{number}77"
        boxes: list[Corners] = [(20, 10 + number, 12, 9), (50, 30, 20, 20)]
        to.add_masked(f"{stem}.jpg", f"{stem}.png", kind.lower(), boxes)
        gray = np.where(to.mask([(18, 9 + number, 16, 11)]), 90, 0).astype(np.uint8)
        to.save(f"{stem}.png", np.where(to.mask(boxes), 255, gray).astype(np.uint8))
    empty = "MT_Uneven/Imgs/exp1_num_5412"
    to.add_masked(f"{empty}.jpg", f"{empty}.png", "uneven", [], is_defective=True)
    to.add_masked("MT_Free/Imgs/exp1_num_4727.jpg", "MT_Free/Imgs/exp1_num_4727.png", "", [], is_defective=False)
    to.picture("dataset.jpg")
    return to.expected(ignored=frozenset({"MT/dataset.jpg"}))


LAYOUTS: dict[str, Callable[[Path], Expected]] = {
    "neu_det/flat": partial(write_neu_det, kaggle=False),
    "neu_det/kaggle": partial(write_neu_det, kaggle=True),
    "gc10_det": write_gc10,
    "x_sdd": write_x_sdd,
    "aluminium": write_aluminium,
    "gdxray": write_gdxray,
    "casting/flat": partial(write_casting, kaggle=False),
    "casting/kaggle": partial(write_casting, kaggle=True),
    "riawelc/db_copy": partial(write_riawelc, folder="DB - Copy"),
    "riawelc/partitioned": partial(write_riawelc, folder="Dataset_partitioned"),
    "riawelc/lp424": write_riawelc_lp424,
    "bsdata": write_bsdata,
    "deeppcb/spaces": partial(write_deeppcb, separator=" "),
    "deeppcb/commas": partial(write_deeppcb, separator=","),
    "pku_pcb": write_pku_pcb,
    "ssgd/release": partial(write_ssgd, release=True),
    "ssgd/configs": partial(write_ssgd, release=False),
    "kolektorsdd": partial(from_tadd, write=tadd_layouts.write_kolektorsdd),
    "kolektorsdd2": partial(from_tadd, write=tadd_layouts.write_kolektorsdd2),
    "aitex": partial(from_tadd, write=tadd_layouts.write_aitex),
    "rsdd/1": partial(write_rsdd, folder="Type-I RSDDs dataset"),
    "rsdd/2": partial(write_rsdd, folder="Type-II RSDDs dataset"),
    "mvtec/leather": partial(write_mvtec, name="leather"),
    "mvtec/wood": partial(write_mvtec, name="wood"),
    "tile/round1": partial(write_tiles, second_round=False),
    "tile/round2": partial(write_tiles, second_round=True),
    "wood": write_wood,
    "mt": write_mt,
}
