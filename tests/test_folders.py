"""Images of one's own: colours, sizes, folders, names. What must never happen: pictures that are not what they show."""

import numpy as np
import pytest
from PIL import Image
from small_data import cifar, contents, refusal, save_image, write
from torchvision import datasets

from helpers import data
from helpers.datasets import folders, sources
from helpers.datasets.folders import load_image_folder


@pytest.fixture
def pictures(tmp_path):
    """An image folder of two classes, three training and two test images each."""
    folder = tmp_path / "pictures"
    for label, name in enumerate(["cat", "owl"]):
        for part, count in (("train", 3), ("test", 2)):
            for i in range(count):
                save_image(folder / part / name / f"{i}.png", seed=100 * label + 10 * count + i)
    return folder


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    monkeypatch.setattr(sources, "download", lambda *_: pytest.fail("the network was asked"))


def message(folder, **more) -> str:
    return refusal(load_image_folder, folder, kind=(ValueError, FileNotFoundError), **more)


def test_an_image_folder_is_read_as_torchvision_reads_it(pictures):
    for images, part in zip(load_image_folder(pictures), ("train", "test"), strict=True):
        oracle = datasets.ImageFolder(pictures / part)
        assert images.classes == oracle.classes and images.labels.tolist() == oracle.targets
        for mine, (theirs, _) in zip(images.images, oracle, strict=True):
            np.testing.assert_array_equal(mine.permute(1, 2, 0), np.asarray(theirs))
        assert images.images.is_contiguous()


def drawing(mode: str) -> Image.Image:
    """A black stroke on nothing (RGBA, LA; others with a transparent colour), on white elsewhere. 32 × 32."""
    if mode in ("RGBA", "LA"):
        alpha = Image.new("L", (32, 32), 0)
        alpha.paste(255, (8, 8, 24, 24))
        image = Image.new(mode, (32, 32), 0)
        image.putalpha(alpha)
        return image
    white = 255 if mode != "P" else 1
    image = Image.new(mode, (32, 32), {"RGB": (9, 9, 9), "I;16": 40, "L": 9, "P": white, "1": 1, "CMYK": 0}[mode])
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.info["transparency"] = 1  # nothing, though its colour in the table is nearly black
    if mode in ("RGB", "L", "I;16"):
        image.info["transparency"] = {"RGB": (9, 9, 9), "L": 9, "I;16": 40}[mode]
    image.paste({"RGB": (0, 0, 0), "CMYK": (0, 0, 0, 255)}.get(mode, 0), (8, 8, 24, 24))
    return image


FILES = [(mode, "png") for mode in ("RGBA", "LA", "P", "RGB", "L", "I;16", "1")]
FILES += [("P", "gif"), ("RGBA", "tiff"), ("RGBA", "webp"), ("RGBA", "ico"), ("CMYK", "jpg")]


@pytest.mark.parametrize(("mode", "suffix"), FILES)
def test_what_is_transparent_is_laid_on_white_whatever_the_mode(pictures, mode, suffix):
    image = drawing(mode)
    more = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    image.save(pictures / "test" / "cat" / f"9.{suffix}", **(more | ({"lossless": True} if suffix == "webp" else {})))
    pixels = load_image_folder(pictures)[1].images[2]
    assert pixels[:, 8:24, 8:24].max() < 10 and pixels[:, :7].min() > 245 and pixels[:, 26:].min() > 245


def test_half_transparent_and_grey_and_sixteen_bits(pictures):
    Image.new("RGBA", (32, 32), (0, 0, 0, 128)).save(pictures / "test" / "cat" / "2.png")
    Image.new("L", (32, 32), 77).save(pictures / "test" / "cat" / "3.png")
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(pictures / "test" / "cat" / "4.png")
    half, grey, deep = load_image_folder(pictures)[1].images[2:5, :, 0, 0].tolist()
    assert half == [127] * 3 and grey == [77] * 3 and deep == [40_000 >> 8] * 3


def test_photographs_stand_upright_and_of_an_animation_the_first_picture_counts(pictures):
    image = Image.fromarray(np.repeat(np.array([[0] * 16 + [255] * 16], np.uint8), 32, axis=0)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90° clockwise
    image.save(pictures / "test" / "cat" / "8.jpg", exif=exif)
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black")]
    frames[0].save(pictures / "test" / "cat" / "9.gif", save_all=True, append_images=frames[1:])
    upright, first = load_image_folder(pictures)[1].images[2:4].float()
    assert upright[:, :15].mean() < 50 < 200 < upright[:, 17:].mean() and first.min() == 255


def test_photographs_of_all_kinds_just_work(pictures, capsys):
    save_image(pictures / "test" / "owl" / "1.png", size=(40, 20))
    save_image(pictures / "train" / "owl" / "8.jpg", size=(300, 400), mode="L")
    train, test = load_image_folder(pictures)
    assert train.images.shape == (7, 3, 32, 32) and test.images.shape == (4, 3, 32, 32)  # the median of the short sides
    said = capsys.readouterr().out
    assert "32×32" in said and "image_size=" in said and said.count("\n") == 1 and "32×32" in train.source
    assert load_image_folder(pictures, image_size=24)[0].images.shape == (7, 3, 24, 24)


def test_large_photographs_fit_in_memory(pictures, monkeypatch):
    for path in pictures.rglob("*.png"):
        save_image(path, size=(260, 230))
    assert load_image_folder(pictures)[0].images.shape == (6, 3, 230, 260)  # of one size, and few
    (pictures / "decoded.pt").unlink()
    monkeypatch.setattr(folders, "ROOM", 10 * 3 * 260 * 230 - 1)
    assert load_image_folder(pictures)[0].images.shape == (6, 3, 224, 224)


def test_portrait_and_landscape_of_one_camera_are_of_two_sizes(pictures):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, path in enumerate(sorted(pictures.rglob("*.png"))):
        Image.new("RGB", (40, 30)).save(path.with_suffix(".jpg"), **({"exif": exif} if i % 2 else {}))
        path.unlink()
    assert load_image_folder(pictures)[0].images.shape == (6, 3, 30, 30)


DOORS = ["folder", "LECTURE_IMAGES", "cifar10"]


def enter(door, pictures, home, monkeypatch):
    """Where the pictures are then, and the argument `folder`."""
    monkeypatch.setenv("HOME", str(pictures.parent))
    if door == "cifar10":
        return pictures.rename(home / "cifar10"), None
    write(home / "cifar-10-batches-py", cifar(monkeypatch)[0])  # which comes before the folder cifar10 only
    monkeypatch.setenv("LECTURE_IMAGES", "~/pictures" if door == "LECTURE_IMAGES" else "/nowhere")
    return pictures, "~/pictures" if door == "folder" else None


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["test", "val", "Validation"])
def test_own_images_have_a_way_in(home, pictures, monkeypatch, door, name):
    (pictures / "test").rename(pictures / name)
    place, folder = enter(door, pictures, home, monkeypatch)
    assert data.find_cifar10(folder) == place
    train, test = data.load_cifar10(folder, image_size=16)
    assert train.name == test.name == "own images (not CIFAR-10)" and str(home) not in train.source
    assert (len(train), len(test)) == (6, 4) and train.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("lacks", ["train", "test"])
def test_a_part_that_is_missing_is_named_before_anything_is_downloaded(home, pictures, monkeypatch, door, lacks):
    (pictures / lacks).rename(pictures / "other")
    place, folder = enter(door, pictures, home, monkeypatch)
    text = refusal(data.find_cifar10, folder, kind=FileNotFoundError)
    assert f"{place / lacks} is missing" in text and "train/<class>/<image>" in text and not (place / lacks).exists()


def test_cifar10_itself_comes_before_the_folder_cifar10(home, pictures, monkeypatch):
    pictures.rename(home / "cifar10")
    write(home / "cifar-10-batches-py", cifar(monkeypatch)[0])
    assert data.load_cifar10()[0].name == "CIFAR-10"


def cifar_folder(home, suffix=".png", classes=None, size=(32, 32), count=2, form=None):
    for label, name in enumerate(classes or folders.CIFAR10_CLASSES):
        for part, its in (("train", count), ("test", 1)):
            for i in range(its):
                path = home / "cifar10" / part / name / f"{i}{suffix}"
                save_image(path.with_suffix(form or suffix), 10 * label + i, size)
                path.with_suffix(form or suffix).rename(path)


NOT = "images of CIFAR-10's classes (not CIFAR-10)"


KINDS = [
    ({}, "CIFAR-10 (image folder)"),
    ({"suffix": ".png", "form": ".jpg"}, "CIFAR-10 as JPEG"),  # what is in the file counts, not its suffix
    ({"suffix": ".jpg", "form": ".png"}, "CIFAR-10 (image folder)"),
    ({"suffix": ".webp"}, "CIFAR-10 as WEBP"),
    ({"count": 1}, NOT),
    ({"size": (48, 48)}, NOT),
    ({"classes": folders.CIFAR10_CLASSES[:9]}, "own images (not CIFAR-10)"),
]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_name_claims_what_was_found_in_the_files(home, monkeypatch, kind, name):
    assert folders.CIFAR10_COUNTS == (5_000, 1_000)
    monkeypatch.setattr(folders, "CIFAR10_COUNTS", (2, 1))
    cifar_folder(home, **kind)
    for _ in range(2):  # decoded, then kept
        assert [part.name for part in data.load_cifar10()] == [name, name]
    if name != NOT:
        assert data.load_cifar10(image_size=32)[0].name == name


def test_a_changed_added_or_removed_file_is_noticed(pictures):
    write(pictures, {".DS_Store": b"x", "train/.DS_Store": b"x", "train/cat/.DS_Store": b"x", "test/.x/y": b"x"})
    assert len(load_image_folder(pictures)[0]) == 6 and (pictures / "decoded.pt").is_file()  # hidden ones do not count
    pixels = save_image(pictures / "test" / "cat" / "0.png", seed=77)
    (pictures / "train" / "cat" / "1.png").unlink()
    save_image(pictures / "train" / "owl" / "9.png")
    train, test = load_image_folder(pictures)
    np.testing.assert_array_equal(test.images[0].permute(1, 2, 0), pixels)
    assert train.labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_place_that_refuses_what_is_to_be_kept_is_named(pictures, capsys):
    (pictures / "decoded.pt").mkdir()  # stops every user, root as well, unlike a read-only folder
    assert len(load_image_folder(pictures)[0]) == 6
    assert f"{pictures / 'decoded.pt'} cannot be written" in capsys.readouterr().out
    assert not list(pictures.glob("*.partial"))


@pytest.mark.parametrize("content", ["empty", "cut", "I", "F"])
def test_a_file_that_is_no_image_is_named(pictures, content):
    path = pictures / "train" / "owl" / "1.png"
    if content in "IF":  # numbers that do not say which of them is white
        Image.new(content, (32, 32), 3).save(path, "TIFF")
    else:
        path.write_bytes(path.read_bytes()[: 200 if content == "cut" else 0])
    assert message(pictures).startswith(f"{path} cannot be read as an image")
    assert "decoded.pt" not in contents(pictures)


def test_wrong_layouts_are_named(pictures):
    (pictures / "test" / "owl").rename(pictures / "test" / "owls")
    assert "['owl']" in message(pictures) and "['owls']" in message(pictures) and str(pictures) in message(pictures)
    (pictures / "test" / "wolf").mkdir()
    assert f"{pictures / 'test' / 'wolf'} holds no image" in message(pictures)
    assert f"{pictures / 'train' / 'train'} is missing" in message(pictures / "train")
    assert "at least 1 pixel" in message(pictures, image_size=0)
