"""The student: symmetries, hidden patches, terms of its loss, and how it begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from distill.toys import settings_of, teacher_file
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.distill import LossSettings
from napari_alibi_seg.distill._crops import _shares
from napari_alibi_seg.distill._losses import cosine_loss, huber_loss, self_targets
from napari_alibi_seg.distill._student import (
    Student,
    Symmetry,
    hidden_patches,
    make_student,
)
from napari_alibi_seg.distill._teachers import load_teacher
from napari_alibi_seg.distill._update import rolled
from napari_alibi_seg.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    load_backbone,
    new_vit,
)

CPU = torch.device("cpu")


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------- symmetries and rolls

_SYMMETRIES = st.builds(
    Symmetry,
    st.integers(0, 3),
    st.booleans(),
    st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
)


@settings(max_examples=40, deadline=None)
@given(_SYMMETRIES, st.integers(1, 5), st.integers(1, 4))
def test_undo_undoes(symmetry, side, scale):
    x = torch.arange(2.0 * 3 * (side * scale) ** 2).reshape(
        2, 3, side * scale, side * scale
    )
    assert torch.equal(symmetry.undo(symmetry.apply(x, scale), scale), x)
    assert torch.equal(symmetry.apply(symmetry.undo(x, scale), scale), x)


@settings(max_examples=40, deadline=None)
@given(_SYMMETRIES, st.integers(1, 4))
def test_pixels_and_tokens_move_together(symmetry, scale):
    x = _random(1, 2, 4 * scale, 4 * scale)
    pool = torch.nn.functional.avg_pool2d
    moved = pool(symmetry.apply(x, scale), scale)
    torch.testing.assert_close(moved, symmetry.apply(pool(x, scale), 1))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays("uint8", (12, 18), elements=st.integers(0, 3)),
    st.integers(0, 3),
    st.integers(0, 5),
)
def test_support_rolls_with_its_shares(regions, dy, dx):
    shares = _shares(regions, 3)[None]  # (1, K, 4, 6)
    support = torch.tensor([[0, 5, 7, 23, -1, 12, -1]])
    moved = rolled(support, (4, 6), (dy, dx))
    assert torch.equal(moved < 0, support < 0)
    there = support[0] >= 0
    before = shares.flatten(2)[..., support[0][there]]
    after = shares.roll((dy, dx), (2, 3)).flatten(2)[..., moved[0][there]]
    assert torch.equal(after, before)


# ------------------------------------------------------------------------- the student


def _student(losses, *, alibi=None, is_self=False, head=True, n=8):
    vit = new_vit(
        embed_dim=16,
        depth=1,
        num_heads=2,
        patch_size=4,
        registers=1,
        alibi=alibi or Alibi(),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        seed=0,
    )
    with torch.no_grad():
        for i, p in enumerate(vit.parameters()):
            p += 0.2 * _random(*p.shape, seed=i)
    return Student(vit, n, LossSettings(**losses), head=head, is_self=is_self)


def _terms(student, targets, hidden=None, symmetry=None, mosaics=0):
    x = _random(2, 3, 16, 16, seed=5)
    shares = torch.zeros(mosaics, 4, 4, 4)
    shares[:, 0, :2], shares[:, 1, 2:] = 1, 1
    support = torch.tensor([[0, 1, 14, 15]]).expand(mosaics, 4)
    labelled = torch.arange(2) < mosaics
    return student(
        x,
        targets,
        labelled,
        shares,
        support,
        hidden,
        symmetry or Symmetry(),
    )


def test_terms_are_weighted_and_summed():
    targets = _random(2, 8, 4, 4)
    wish = {"cosine": 2.0, "smooth_l1": 0.5, "few_shot": 3.0}
    student = _student(wish)
    terms = _terms(student, targets, mosaics=1)
    assert set(terms) == {"cosine", "smooth_l1", "few_shot", "loss"}
    prediction = student.head(student.vit(_random(2, 3, 16, 16, seed=5)))
    assert terms["cosine"].item() == pytest.approx(
        2 * cosine_loss(prediction, targets).item()
    )
    assert terms["smooth_l1"].item() == pytest.approx(
        0.5 * huber_loss(prediction, targets).item()
    )
    assert terms["loss"].item() == pytest.approx(
        sum(v.item() for k, v in terms.items() if k != "loss")
    )


def test_a_batch_without_mosaics_has_no_few_shot_term():
    student = _student({"cosine": 0, "few_shot": 1.0})
    terms = _terms(student, None)
    assert terms["loss"].item() == 0
    terms["loss"].backward()  # and can still be stepped on
    assert set(_terms(student, None, mosaics=2)) == {"few_shot", "loss"}


@pytest.mark.parametrize(
    "symmetry", [Symmetry(1), Symmetry(0, True), Symmetry(3, True, (1, 2))], ids=str
)
def test_an_equivariant_model_does_not_notice_a_roll_but_a_turn(symmetry):
    targets = _random(2, 8, 4, 4)
    student = _student({"cosine": 1.0})
    plain = _terms(student, targets)["loss"].item()
    rolled = _terms(student, targets, symmetry=Symmetry(0, False, (1, 2)))["loss"]
    assert rolled.item() == pytest.approx(plain, abs=1e-5)
    turned = _terms(student, targets, symmetry=symmetry)["loss"]
    assert abs(turned.item() - plain) > 1e-4


def test_self_compares_hidden_tokens_only():
    student = _student({"cosine": 0, "smooth_l1": 1.0}, is_self=True, n=16)
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[:, 1, 2] = True
    targets = _random(2, 16, 4, 4)
    x = _random(2, 3, 16, 16, seed=5)
    wanted = self_targets(targets)[:, :, 1, 2]
    found = student.head(student.vit(x, hidden))[:, :, 1, 2]
    expected = huber_loss(found, wanted).item()
    assert _terms(student, targets, hidden)["loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "symmetry", [Symmetry(1), Symmetry(2, True), Symmetry(0, False, (1, 3))], ids=str
)
def test_hidden_patches_move_with_the_image(symmetry):
    """What is compared is what was hidden: the student cannot know its pixels."""
    student = _student({"cosine": 0, "smooth_l1": 1.0}, is_self=True, n=16)
    hidden = torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[0, 1, 2] = True
    targets = _random(1, 16, 4, 4)
    x = _random(1, 3, 16, 16, seed=5)
    other = x.clone()
    other[:, :, 4:8, 8:12] = 3.0
    empty = torch.zeros(0, 4, 4, 4), torch.zeros(0, 48, dtype=torch.int64)
    losses = [
        student(
            images, targets, torch.zeros(1, dtype=torch.bool), *empty, hidden, symmetry
        )["loss"].item()
        for images in (x, other)
    ]
    assert losses[0] == losses[1]


def test_without_a_head_channels_must_agree():
    assert isinstance(_student({}, head=False, n=16).head, torch.nn.Identity)
    with pytest.raises(SettingsError, match="has 16 channels, its targets 8"):
        _student({}, head=False, n=8)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 1.0])
def test_hidden_share(share):
    masks = hidden_patches(np.random.default_rng(0), 20, (9, 12), share)
    assert masks.shape == (20, 9, 12)
    covered = masks.float().mean(dim=(1, 2))
    assert (covered >= share).all()
    assert covered.mean() < share + 0.12  # the last block may reach a little further
    assert len({m.numpy().tobytes() for m in masks}) == (1 if share == 1 else 20)


def test_nothing_hidden_is_no_mask():
    assert hidden_patches(np.random.default_rng(0), 2, (3, 3), 0) is None


# ------------------------------------------------------------------------- new students


def _images(side=16, n=2, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _normal(x):
    shape = (1, 3, 1, 1)
    mean, std = (torch.tensor(v).reshape(shape) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


@pytest.fixture(scope="module")
def vit_path(tmp_path_factory):
    return teacher_file(tmp_path_factory.mktemp("teacher") / "vit.safetensors")


def test_a_new_student_has_a_head_to_the_teachers_channels(vit_path, tmp_path):
    settings = settings_of(tmp_path, str(vit_path))
    teacher = load_teacher(settings.teacher, CPU)
    a, b = (make_student(settings, teacher) for _ in range(2))
    assert a.head.weight.shape == (24, 16, 1, 1)
    assert all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    other = make_student(settings.model_copy(update={"seed": 3}), teacher)
    assert not torch.equal(other.head.weight, a.head.weight)


def test_a_retrofit_starts_as_its_teacher_without_position(vit_path, tmp_path):
    settings = settings_of(tmp_path, str(vit_path), student=None)
    teacher = load_teacher(settings.teacher, CPU)
    student = make_student(settings, teacher)
    assert isinstance(student.head, torch.nn.Identity)
    assert student.vit.alibi == Alibi()
    assert student.vit.model.pos_embed is None
    x = _normal(_images())
    expected = load_backbone(vit_path, alibi=Alibi(), device="cpu").patch_features(x)
    torch.testing.assert_close(
        student.vit(x).detach(), expected.clone(), atol=1e-5, rtol=0
    )
