"""One loss from several: each weighting follows its formula."""

import math

import pytest
import torch

from mammo_lib.training.joint_loss import JointLoss, gradient_ratio


def losses():
    z = torch.tensor([[1.0, 2.0]], requires_grad=True)
    return z, (z**2).sum(), {"a": 3 * z.sum()}  # gradients (2, 4) and (3, 3)


def test_a_fixed_weight_multiplies():
    z, main, others = losses()
    assert JointLoss(["a"], 0.5, "fixed")(main, others, [z]) == 5 + 0.5 * 9


@pytest.mark.parametrize("weighting", ["fixed", "gradient"])
def test_weight_0_leaves_the_main_loss_and_its_gradient(weighting):
    z, main, others = losses()
    total = JointLoss(["a"], 0.0, weighting)(main, others, [z])
    (gradient,) = torch.autograd.grad(total, z)
    assert total == main and gradient.tolist() == [[2.0, 4.0]]


def test_the_gradients_of_both_losses_get_one_norm():
    z, main, others = losses()
    assert gradient_ratio(main, others["a"], [z]) == pytest.approx(math.sqrt(20) / math.sqrt(18))
    total = JointLoss(["a"], 1.0, "gradient")(main, others, [z])
    (gradient,) = torch.autograd.grad(total, z)
    added = gradient - torch.tensor([[2.0, 4.0]])
    assert added.norm().item() == pytest.approx(math.sqrt(20))


def test_a_loss_without_gradient_gets_no_weight():
    z, main, _ = losses()
    assert gradient_ratio(main, 0 * z.sum(), [z]) == 0


def test_uncertainty_starts_as_a_sum_and_its_optimum_is_the_logarithm():
    """d/ds (exp(-s) L + s / 2) = 0 at s = log(2 L)."""
    z, main, others = losses()
    joint = JointLoss(["a"], 1.0, "uncertainty")
    assert joint(main, others, [z]) == 5 + 9
    with torch.no_grad():
        joint.log_variance["a"].fill_(math.log(18))
        joint.log_variance["main"].fill_(math.log(10))
    joint(main, others, [z]).backward()
    assert all(one.grad.abs() < 1e-6 for one in joint.parameters())


def test_the_weight_multiplies_losses_and_not_the_uncertainty():
    """d/ds (w exp(-s) L + s / 2) at s = 0 is 1/2 - w L."""
    z, main, others = losses()
    joint = JointLoss(["a"], 0.25, "uncertainty")
    joint(main, others, [z]).backward()
    assert joint.log_variance["a"].grad == 0.5 - 0.25 * 9


def test_a_batch_without_labels_of_a_target_teaches_nothing_of_its_uncertainty():
    z, main, _ = losses()
    joint = JointLoss(["a"], 1.0, "uncertainty")
    joint(main, {"a": 0 * z.sum()}, [z], unknown=["a"]).backward()
    assert joint.log_variance["a"].grad == 0 and joint.log_variance["main"].grad != 0


def test_only_learned_uncertainty_has_parameters():
    assert [len([*JointLoss(t, 1.0, w).parameters()]) for t, w in (
        ([], "uncertainty"), (["a"], "fixed"), (["a"], "gradient"), (["a"], "uncertainty"),
    )] == [0, 0, 0, 2]  # fmt: skip
