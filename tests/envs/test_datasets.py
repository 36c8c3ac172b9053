from __future__ import annotations

import gzip
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunemap.envs import DATASETS, Dataset, load_dataset
from prunemap.envs.datasets.mnist import read_idx
from prunemap.envs.datasets.shapes import FIGURES, draw
from prunemap.envs.datasets.splits import normalised, stratified
from prunemap.pruning import PrunemapError

Options = dict[str, Any]


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)


def labels_and_pixels(count: int, classes: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Every class equally often; images whose brightness tells the class."""
    rng = np.random.default_rng(count)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 100, (count, *shape)) + labels.reshape(-1, *[1] * len(shape)) * (150 // classes)
    return labels, pixels.astype(np.uint8)


def make_mnist(folder: Path) -> Options:
    for prefix, count in (("train", 200), ("t10k", 50)):
        labels, pixels = labels_and_pixels(count, 10, 28, 28)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels, packed=prefix == "train")
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return {"folder": str(folder), "validation": 50}


def write_cifar(path: Path, count: int, classes: int, coarse: bool) -> None:
    labels, pixels = labels_and_pixels(count, classes, 3 * 32 * 32)
    columns = [labels[:, None] // 5, labels[:, None]] if coarse else [labels[:, None]]
    path.write_bytes(np.hstack([*columns, pixels]).astype(np.uint8).tobytes())


def make_cifar10(folder: Path) -> Options:
    for name in (*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"):
        write_cifar(folder / name, 40, 10, coarse=False)
    return {"folder": str(folder), "validation": 50}


def make_cifar100(folder: Path) -> Options:
    write_cifar(folder / "train.bin", 300, 100, coarse=True)
    write_cifar(folder / "test.bin", 100, 100, coarse=True)
    return {"folder": str(folder), "validation": 100}


def make_imagefolder(folder: Path) -> Options:
    for kind in range(3):
        (folder / f"class-{kind}").mkdir()
        _, pixels = labels_and_pixels(10, 10, 20 + kind, 30, 3)
        for index, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / f"class-{kind}" / f"{index}.png")
    return {"folder": str(folder), "size": 16}


EXAMPLES: dict[str, Callable[[Path], Options]] = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "digits": lambda folder: {},
    "imagefolder": make_imagefolder,
    "mnist": make_mnist,
    "shapes": lambda folder: {"images": 600},
}


def test_every_dataset_has_an_example() -> None:
    assert set(EXAMPLES) == set(DATASETS)


@pytest.fixture(params=DATASETS)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Options]:
    return request.param, EXAMPLES[request.param](tmp_path)


def test_splits_are_tensors_of_one_form(example: tuple[str, Options]) -> None:
    data = load_dataset(example[0], **example[1])
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == torch.float32
        assert split.images.is_contiguous()
        assert tuple(split.images.shape[1:]) == data.input_shape
        assert split.labels.dtype == torch.int64
        assert len(split) == len(split.images) == len(split.labels)
        assert torch.isfinite(split.images).all()
        assert split.labels.unique().tolist() == list(range(data.classes))


def test_normalised_on_train_only(example: tuple[str, Options]) -> None:
    images = load_dataset(example[0], **example[1]).train.images
    assert images.mean((0, 2, 3)).abs().max() < 1e-4
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_only_the_seed_decides(example: tuple[str, Options]) -> None:
    name, options = example
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    digests = [load_dataset(name, **options, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_missing_folder(name: str, tmp_path: Path) -> None:
    options = EXAMPLES[name](tmp_path)
    if "folder" not in options:
        pytest.skip("is not read from a folder")
    for wrong, message in (({"folder": str(tmp_path / "absent")}, "is not a folder; expected one"), ({}, "'folder'")):
        with pytest.raises(PrunemapError, match=message):
            load_dataset(name, **wrong)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "unknown dataset 'digit'; did you mean digits"),
        ("digits", {"size": 16}, "unknown option of dataset digits: 'size'; did you mean resize"),
        ("digits", {"validation": 1500}, "dataset digits: splits of -200, 1500, 497 images"),
        ("shapes", {"noise": -1.0}, "option 'noise': must be greater than or equal to 0"),
        ("shapes", {"size": 4}, "option 'size': must be greater than or equal to 8"),
    ],
)
def test_bad_options(name: str, options: Options, message: str) -> None:
    with pytest.raises(PrunemapError) as error:
        load_dataset(name, **options)
    assert message in str(error.value)


def test_digits_resize() -> None:
    assert load_dataset("digits").input_shape == (1, 8, 8)
    data = load_dataset("digits", resize=16, validation=500, test=300)
    assert data.input_shape == (1, 16, 16)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [997, 500, 300]


def test_stratified_gives_every_class_its_share() -> None:
    labels = np.repeat(np.arange(4), (100, 50, 37, 13))
    samples = stratified(labels, (80, 60, 40), seed=3, what="test")
    assert [len(sample) for sample in samples] == [80, 60, 40]
    assert len(np.unique(np.concatenate(samples))) == 180
    for sample in samples:
        share = np.bincount(labels) * len(sample) / len(labels)
        assert np.abs(np.bincount(labels[sample], minlength=4) - share).max() <= 1


def test_constant_channels_are_only_shifted() -> None:
    images, labels = np.full((4, 1, 2, 2), 7, np.uint8), np.arange(4)
    data = normalised([(images, labels), (images + 1, labels), (images, labels)], classes=4)
    assert torch.equal(data.train.images, torch.zeros(4, 1, 2, 2))
    assert torch.equal(data.validation.images, torch.ones(4, 1, 2, 2))


class TestMnist:
    def test_pixels_and_labels_belong_together(self, tmp_path: Path) -> None:
        data = load_dataset("mnist", **make_mnist(tmp_path))
        assert [len(split) for split in (data.train, data.validation, data.test)] == [150, 50, 50]
        for split in (data.train, data.test):
            brightness = [split.images[split.labels == label].mean().item() for label in range(10)]
            assert brightness == sorted(brightness)

    def test_fewer_images_on_demand(self, tmp_path: Path) -> None:
        assert len(load_dataset("mnist", **make_mnist(tmp_path), train=30).train) == 30

    def test_missing_file(self, tmp_path: Path) -> None:
        options = make_mnist(tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte").unlink()
        with pytest.raises(PrunemapError, match=r"holds no file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz"):
            load_dataset("mnist", **options)

    def test_images_and_labels_of_different_number(self, tmp_path: Path) -> None:
        options = make_mnist(tmp_path)
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(49))
        with pytest.raises(PrunemapError, match=r"images \(50, 28, 28\) and labels \(49,\) do not match"):
            load_dataset("mnist", **options)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\0\0\x08",
            b"\0\0\x0d\x01" + struct.pack(">I", 1) + bytes(4),
            b"\x1f\x8b\x08\0",
            b"\0\0\x08\x03" + struct.pack(">II", 1, 1),
            b"\0\0\x08\x01" + struct.pack(">I", 5) + bytes(4),
            b"\0\0\x08\x01" + struct.pack(">I", 5) + bytes(6),
            b"\0\0\x08\x03" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(9),
        ],
        ids=["empty", "short", "floats", "gzip", "half a header", "too short", "too long", "huge header"],
    )
    @pytest.mark.parametrize("packed", [False, True])
    def test_malformed_files(self, data: bytes, packed: bool, tmp_path: Path) -> None:
        path = tmp_path / ("file.gz" if packed else "file")
        path.write_bytes(gzip.compress(data) if packed else data)
        with pytest.raises(PrunemapError, match=str(path)):
            read_idx(path)

    def test_damaged_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "file.gz"
        path.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 5000) + bytes(5000))[:-12])
        with pytest.raises(PrunemapError, match="cannot be read"):
            read_idx(path)


class TestCifar:
    def test_channels_stay_apart(self, tmp_path: Path) -> None:
        options = make_cifar10(tmp_path)
        record = np.concatenate([[3], np.full(1024, 9), np.full(1024, 50), np.full(1024, 200)]).astype(np.uint8)
        (tmp_path / "test_batch.bin").write_bytes(record.tobytes())
        split = load_dataset("cifar10", **options).test
        assert split.labels.tolist() == [3]
        assert [len(split.images[0, channel].unique()) for channel in range(3)] == [1, 1, 1]
        assert split.images[0, 0, 0, 0] < split.images[0, 1, 0, 0] < split.images[0, 2, 0, 0]

    def test_fine_labels_of_cifar100(self, tmp_path: Path) -> None:
        assert load_dataset("cifar100", **make_cifar100(tmp_path)).test.labels.sort().values.tolist() == list(
            range(100)
        )

    @pytest.mark.parametrize(
        ("name", "file", "archive"),
        [("cifar10", "data_batch_1", "cifar-10-binary.tar.gz"), ("cifar100", "train", "cifar-100-binary.tar.gz")],
    )
    def test_pickles_are_refused(self, name: str, file: str, archive: str, tmp_path: Path) -> None:
        (tmp_path / file).write_bytes(pickle.dumps({b"data": b""}))
        with pytest.raises(PrunemapError, match=f"pickles can run any code and are refused; .*{archive}"):
            load_dataset(name, folder=tmp_path)

    def test_missing_batch(self, tmp_path: Path) -> None:
        options = make_cifar10(tmp_path)
        (tmp_path / "data_batch_4.bin").unlink()
        with pytest.raises(PrunemapError, match=r"holds no file data_batch_4\.bin"):
            load_dataset("cifar10", **options)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (bytes(3000), "not records of 3073"),
            (b"", "0 bytes are not records"),
            (b"\x0a" + bytes(3072), "holds class 10"),
        ],
    )
    def test_malformed_files(self, data: bytes, message: str, tmp_path: Path) -> None:
        options = make_cifar10(tmp_path)
        (tmp_path / "test_batch.bin").write_bytes(data)
        with pytest.raises(PrunemapError, match=message):
            load_dataset("cifar10", **options)


class TestImageFolder:
    def test_shares(self, tmp_path: Path) -> None:
        data = load_dataset("imagefolder", **make_imagefolder(tmp_path), validation=0.3, test=0.1)
        assert data.input_shape == (3, 16, 16)
        assert data.classes == 3
        assert [len(split) for split in (data.train, data.validation, data.test)] == [18, 9, 3]

    def test_other_files_and_grey_pictures(self, tmp_path: Path) -> None:
        options = make_imagefolder(tmp_path)
        (tmp_path / "class-0" / "notes.txt").write_text("not a picture")
        (tmp_path / ".hidden").mkdir()
        Image.fromarray(np.zeros((5, 40), np.uint8)).save(tmp_path / "class-0" / "grey.jpg")
        data = load_dataset("imagefolder", **options)
        assert sum(len(split) for split in (data.train, data.validation, data.test)) == 31

    def test_unreadable_picture(self, tmp_path: Path) -> None:
        options = make_imagefolder(tmp_path)
        (tmp_path / "class-1" / "broken.png").write_bytes(b"no picture")
        with pytest.raises(PrunemapError, match=r"broken\.png cannot be read as an image"):
            load_dataset("imagefolder", **options)

    @pytest.mark.parametrize("factor", [1, 3], ids=["a warning of Pillow's", "an error of Pillow's"])
    def test_decompression_bomb(self, factor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        options = make_imagefolder(tmp_path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600 // factor - 1)
        with pytest.raises(PrunemapError, match=r"0\.png cannot be read as an image .*decompression bomb"):
            load_dataset("imagefolder", **options)

    def test_one_class(self, tmp_path: Path) -> None:
        (tmp_path / "only").mkdir()
        with pytest.raises(PrunemapError, match="a sub-folder of images per class"):
            load_dataset("imagefolder", folder=tmp_path)

    def test_empty_class(self, tmp_path: Path) -> None:
        options = make_imagefolder(tmp_path)
        (tmp_path / "class-9").mkdir()
        with pytest.raises(PrunemapError, match="class-9 holds no image"):
            load_dataset("imagefolder", **options)


class TestShapes:
    def test_figures_differ_and_lie_inside(self) -> None:
        images, labels = draw(200, 24, noise=0.0, clutter=0, rng=np.random.default_rng(0))
        for label, name in enumerate(FIGURES):
            mass = np.abs(images[labels == label]).sum((1, 2, 3))
            assert mass.min() > 4, name
        border = np.concatenate([images[:, 0, edge].ravel() for edge in (0, -1)])
        assert np.abs(border).mean() < 0.1

    def test_noise_and_clutter_add_to_the_figures(self) -> None:
        clean, noisy, strewn = (
            draw(500, 16, noise, clutter, np.random.default_rng(0))[0] for noise, clutter in ((0, 0), (0.5, 0), (0, 4))
        )
        assert abs((noisy - clean).std() - 0.5) < 0.01
        assert 0.01 < np.abs(strewn - clean).mean() < 0.2

    def test_sizes(self) -> None:
        data: Dataset = load_dataset("shapes", size=32, images=100)
        assert data.input_shape == (1, 32, 32)
        assert [len(split) for split in (data.train, data.validation, data.test)] == [40, 30, 30]
