from suites.static_vision import Digits


def test_training_images_have_mean_0_and_variance_1():
    task = Digits()
    inputs = task.prepare(task.split("train").inputs)
    assert abs(inputs.mean().item()) < 1e-3
    assert abs(inputs.var().item() - 1) < 1e-3


def test_the_images_are_the_same_at_every_step():
    task = Digits()
    inputs = next(task.batches("test", 8)).inputs
    sequence = task.encode(inputs, 4)
    assert sequence.shape == (4, 8, 1, 8, 8)
    assert (sequence == inputs).all()
