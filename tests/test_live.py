"""The page of the live LeNet: the same layers as the network's, and only LeNet goes into it. tests/browser tries it."""

import torch
from benchmarks.work import LeNet
from common import refused

from helpers.data import digits
from helpers.pages.live import lenet_steps, live_lenet, mistakes, trained_lenet


def test_the_steps_are_those_of_the_network():
    model, images = LeNet().eval(), torch.randn(5, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(lenet_steps(model.state_dict(), images)["logits"], model(images))


def test_the_projects_own_lenet_reads_most_digits_of_a_source_that_it_never_saw():
    assert len(mistakes(trained_lenet(), digits()[1], 0.1307, 0.3081)) < 100  # of 500; chance: 450


def test_another_network_is_refused():
    with refused(ValueError, "not LeNet with conv1, conv2, fc1, fc2, fc3"):
        live_lenet(digits()[1], torch.nn.Linear(2, 2).state_dict())
