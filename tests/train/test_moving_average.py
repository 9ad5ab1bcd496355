import numpy as np
import pytest
import torch
from torch import nn

from defect_hub.train.moving_average import MovingAverage


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    return model


def walk(model, average, steps, seed):
    """Random steps; the weights after each."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        with torch.no_grad():
            model[1].weight.add_(torch.randn(1, 2, generator=generator))
        average.update()
        seen.append(model[1].weight.detach().double().numpy().copy())
    return seen


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_average_is_the_recursion_with_a_rising_decay(model, decay):
    average = MovingAverage(model, decay)
    expected = model[1].weight.detach().double().numpy().copy()
    for step, weights in enumerate(walk(model, average, 20, seed=1), start=1):
        share = min(decay, step / (step + 9))
        expected = share * expected + (1 - share) * weights
    np.testing.assert_allclose(average.averages["1.weight"].numpy(), expected, rtol=1e-6)


def test_frozen_weights_are_not_kept(model):
    assert MovingAverage(model, 0.9).averages.keys() == {"1.weight", "1.bias"}


def test_swapped_in_for_a_while_and_back_after_an_error(model):
    average = MovingAverage(model, 0.9)
    walk(model, average, 3, seed=1)
    own, averaged = model[1].weight.detach().clone(), average.averages["1.weight"].clone()
    with pytest.raises(RuntimeError), average.swapped_in():
        assert torch.equal(model[1].weight, averaged)
        raise RuntimeError
    assert torch.equal(model[1].weight, own)
    assert torch.equal(average.averages["1.weight"], averaged)
    average.copy_to_model()
    assert torch.equal(model[1].weight, averaged)


def test_goes_on_from_its_state(model):
    average = MovingAverage(model, 0.9)
    walk(model, average, 3, seed=1)
    state = {"steps": average.state_dict()["steps"], "averages": dict(average.state_dict()["averages"])}
    state["averages"] = {name: value.clone() for name, value in state["averages"].items()}
    weights = model[1].weight.detach().clone()
    walk(model, average, 2, seed=2)
    expected = average.averages["1.weight"].clone()
    with torch.no_grad():
        model[1].weight.copy_(weights)
    again = MovingAverage(model, 0.9)
    again.load_state_dict(state)
    walk(model, again, 2, seed=2)
    assert torch.equal(again.averages["1.weight"], expected)
