"""Teachers of every kind, what becomes of their maps, and kept targets."""

from __future__ import annotations

import pytest
import timm
import torch
from distill.toys import teacher_file
from safetensors.torch import save_file

from napari_alibi_seg._base import SettingsError, WeightsError
from napari_alibi_seg.distill import TeacherSettings
from napari_alibi_seg.distill._teachers import copyable_vit, load_teacher
from napari_alibi_seg.features import IMAGENET_MEAN, IMAGENET_STD, load_backbone

CPU = torch.device("cpu")


def _images(side=16, n=2, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _normal(x):
    shape = (1, 3, 1, 1)
    mean, std = (torch.tensor(v).reshape(shape) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


@pytest.fixture(scope="module")
def vit_path(tmp_path_factory):
    return teacher_file(tmp_path_factory.mktemp("teacher") / "vit.safetensors")


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """A random timm CNN and its state dict in a file, classifier and all."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False).eval()
    path = tmp_path_factory.mktemp("cnn") / "resnet.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model, path


# --------------------------------------------------------------------------------- ViT


def test_a_vit_gives_its_tokens(vit_path):
    teacher = load_teacher(TeacherSettings(name=str(vit_path)), CPU)
    assert teacher.n_channels == 24
    x = _images()
    own = load_backbone(vit_path, device="cpu").patch_features(_normal(x))
    found = teacher.targets(x, (4, 4))
    torch.testing.assert_close(found, own.clone(), atol=1e-6, rtol=0)
    assert not found.is_inference()


def test_another_grid_is_resampled(vit_path):
    teacher = load_teacher(TeacherSettings(name=str(vit_path)), CPU)
    assert teacher.targets(_images(18), (3, 3)).shape == (2, 24, 3, 3)
    flat = torch.full((1, 3, 22, 22), 0.3)
    assert teacher.targets(flat, (2, 2)).shape == (1, 24, 2, 2)


def test_identity_changes_with_the_weights(tmp_path, vit_path):
    other = teacher_file(tmp_path / "vit.safetensors", seed=2)
    a, b = (
        load_teacher(TeacherSettings(name=str(p)), CPU).identity
        for p in (vit_path, other)
    )
    assert a != b
    assert a == load_teacher(TeacherSettings(name=str(vit_path)), CPU).identity


def test_a_vit_stays_where_it_is(vit_path):
    teacher = load_teacher(TeacherSettings(name=str(vit_path)), CPU)
    teacher.to(CPU)
    with pytest.raises(SettingsError, match="on cpu, the training on meta"):
        teacher.to(torch.device("meta"))


# --------------------------------------------------------------------------------- CNN


@pytest.mark.parametrize("grid", [(4, 4), (8, 8)])
def test_levels_are_pooled_to_the_grid(cnn, grid):
    model, path = cnn
    settings = TeacherSettings(
        name="timm:test_resnet", weights=path, levels=(0, 1, 3), std_levels=(0,)
    )
    teacher = load_teacher(settings, CPU)
    x = _images(64)
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        maps = model.forward_intermediates((x - mean) / std, intermediates_only=True)
    maps = [maps[i] for i in (0, 1, 3)]
    n = grid[0]
    expected = []
    for i, level in enumerate(maps):
        side = level.shape[2]
        if side > n:
            cells = level.reshape(*level.shape[:2], n, side // n, n, side // n)
            expected.append(cells.mean(dim=(3, 5)))
            if i == 0:
                expected.append(cells.std(dim=(3, 5), correction=0))
        else:
            expected.append(
                torch.nn.functional.interpolate(level, grid, mode="bilinear")
            )
    expected = torch.cat(expected, dim=1)
    assert teacher.n_channels == expected.shape[1]
    found = teacher.targets(x, grid)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert not found.is_inference()


def test_no_deviation_within_less_than_a_value(cnn):
    settings = TeacherSettings(
        name="timm:test_resnet", weights=cnn[1], levels=(3,), std_levels=(3,)
    )
    teacher = load_teacher(settings, CPU)
    with pytest.raises(SettingsError, match="Leave that level out of `std_levels`"):
        teacher.targets(_images(64), (8, 8))


def test_a_cnn_cannot_be_copied(cnn, tmp_path):
    teacher = load_teacher(
        TeacherSettings(name="timm:test_resnet", weights=cnn[1]), CPU
    )
    with pytest.raises(SettingsError, match="must then be a plain ViT"):
        copyable_vit(teacher)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"name": "timm:test_resnet"}, WeightsError, "--teacher-weights"),
        (
            {"name": "timm:test_resnet", "weights": "none.safetensors"},
            WeightsError,
            "no weights file 'none.safetensors'",
        ),
        (
            {"name": "timm:test_resnat", "weights": "x"},
            SettingsError,
            "no model 'test_resnat'. Near it: .*test_resnet",
        ),
        (
            {"name": "timm:test_efficientnet", "weights": "CNN"},
            WeightsError,
            "does not fit timm's 'test_efficientnet'. missing: blocks",
        ),
        ({"name": "nobody-s"}, SettingsError, "nobody-s"),
        (
            {"name": "VIT", "weights": "VIT"},
            SettingsError,
            "`teacher.weights` belongs to a 'timm:' teacher",
        ),
        ({"name": "nowhere/vit.safetensors"}, WeightsError, "nowhere/vit.safetensors"),
    ],
    ids=["no weights", "no file", "no model", "misfit", "name", "both", "no vit"],
)
def test_refused(settings, error, match, cnn, vit_path):
    places = {"CNN": str(cnn[1]), "VIT": str(vit_path)}
    settings = {k: places.get(v, v) for k, v in settings.items()}
    with pytest.raises(error, match=match):
        load_teacher(TeacherSettings(**settings), CPU)


def test_weights_of_another_shape(cnn, tmp_path):
    tensors = dict(cnn[0].state_dict())
    tensors["conv1.0.weight" if "conv1.0.weight" in tensors else "conv1.weight"] = (
        torch.zeros(1, 2, 3)
    )
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    settings = TeacherSettings(name="timm:test_resnet", weights=path)
    with pytest.raises(WeightsError, match="of another shape: conv1"):
        load_teacher(settings, CPU)
