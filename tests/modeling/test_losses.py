import math

import pytest
import torch

from defect_hub.modeling.losses import CLS_SHARE, alignment_loss, patch_targets, pixel_loss, separation_loss, tddf_loss


def test_one_defective_pixel_makes_its_patch_defective():
    masks = torch.zeros(2, 12, 12, dtype=torch.long)
    masks[0, 3, 4] = 1  # row 0, column 1 of the 3x3 grid
    masks[1, 11, 11] = 1
    assert patch_targets(masks, 3).nonzero().tolist() == [[0, 1], [1, 8]]


def test_focuser_hinge_by_hand():
    d_normal = torch.tensor([[[0.5, 1.0, 0.2, 0.9]]])
    d_abnormal = torch.tensor([[[0.9, 0.4, 0.6, 0.1]]])
    defective = torch.tensor([[True, True, False, False]])
    # Defective patches: 0.9 - 0.5 too far from the abnormal text, then on the right side.
    # Normal patches: on the right side, then 0.9 - 0.1 too near to the abnormal text.
    loss = tddf_loss(d_normal, d_abnormal, defective, normal_weight=0.5)
    assert loss.item() == pytest.approx((0.4 + 0) / 2 + 0.5 * (0 + 0.8) / 2)


def test_focuser_hinge_moves_defective_patches_to_the_abnormal_text():
    d_normal = torch.full((1, 2, 4), 0.8, requires_grad=True)
    d_abnormal = torch.full((1, 2, 4), 1.0, requires_grad=True)
    defective = torch.tensor([[True, False, False, False]])
    tddf_loss(d_normal, d_abnormal, defective, normal_weight=1.0).backward()
    assert (d_abnormal.grad[..., 0] > 0).all()  # descent shrinks this distance
    assert (d_normal.grad[..., 0] < 0).all()
    assert not d_abnormal.grad[..., 1:].any()  # normal patches already lie nearer to the normal text


def test_focuser_hinge_weighs_defective_patches_alike_however_few():
    d_normal, d_abnormal = torch.zeros(1, 1, 100), torch.ones(1, 1, 100)
    defective = torch.zeros(1, 100, dtype=torch.bool)
    assert tddf_loss(d_normal, d_abnormal, defective, 1.0) == 0
    defective[0, 0] = True
    assert tddf_loss(d_normal, d_abnormal, defective, 1.0) == 1


def test_separation_falls_as_the_texts_part():
    same = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    right_angle = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    values = [separation_loss(text).item() for text in (same, right_angle, opposite)]
    assert values == pytest.approx([0, -2, -4])


@pytest.mark.parametrize("positive_weight", [1.0, 5.0])
def test_pixel_loss_by_hand(positive_weight):
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 3)  # defective with probability 3/4
    masks = torch.tensor([[[1, 0, 0]]])
    weighted = -positive_weight * math.log(3 / 4) - 2 * math.log(1 / 4)
    loss = pixel_loss(logits, masks, positive_weight)
    assert loss.item() == pytest.approx(weighted / 3)


def test_alignment_by_hand():
    cls_logits = torch.tensor([[0.0, math.log(4)], [0.0, 0.0]])
    d_normal, d_abnormal = torch.tensor([[[1.5, 1.0]]]), torch.tensor([[[1.0, 1.0]]])
    is_defective, defective = torch.tensor([True, False]), torch.tensor([[True, False]])
    scale = torch.tensor(2 * math.log(3))  # margins ln 3 and 0
    verdict = (-math.log(4 / 5) - math.log(1 / 2)) / 2
    patches = (-math.log(3 / 4) - math.log(1 / 2)) / 2
    loss = alignment_loss(cls_logits, d_normal, d_abnormal, is_defective, defective, scale)
    assert loss.item() == pytest.approx(CLS_SHARE * verdict + patches)
    none = torch.zeros(0, 1, 2)
    assert alignment_loss(cls_logits, none, none, is_defective, None, scale).item() == pytest.approx(
        CLS_SHARE * verdict
    )
