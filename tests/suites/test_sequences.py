import torch

from suites import digits
from suites.sequences import DigitsPixels


def test_pixels_come_one_per_step_row_by_row():
    task = DigitsPixels()
    images, _ = digits.images("test")
    batch = task.gather("test", torch.tensor([3, 5]))
    sequence = task.encode(batch.inputs, task.steps)
    assert sequence.shape == (64, 2, 1)
    torch.testing.assert_close(sequence[8 * 2 + 5, 1, 0] * task.deviation + task.mean, images[5, 2, 5])


def test_training_pixels_have_mean_0_and_variance_1():
    inputs = DigitsPixels().split("train").inputs
    assert abs(inputs.mean().item()) < 1e-3
    assert abs(inputs.var().item() - 1) < 1e-3


def test_the_reference_network_sees_the_first_pixel_at_the_last_step():
    from methods.ann import Ann

    torch.manual_seed(0)
    task = DigitsPixels()
    net = Ann(task).build().eval()
    sequence = torch.randn(64, 1, 1, requires_grad=True)
    task.final(net(sequence)).sum().backward()
    assert sequence.grad[0].abs().item() > 0
