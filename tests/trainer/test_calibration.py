import numpy as np

from trainer.calibration import offsets_and_temperature


def test_what_a_network_overstates_of_a_class_is_taken_back() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0, 2, (20_000, 3)) + (0, -2, -4)
    share = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    right = (rng.random((len(share), 1)) > share.cumsum(axis=1)).sum(axis=1)
    # It overstates the last class threefold, and is surer of everything than it ought to be.
    said = np.exp(2 * true_logits + (0, 0, np.log(3)))
    said /= said.sum(axis=1, keepdims=True)

    offsets, temperature = offsets_and_temperature([(said[:9000], right[:9000]), (said[9000:], right[9000:])])

    assert abs(temperature - 2) < 0.15
    assert abs(offsets[2] - offsets[0] + np.log(3)) < 0.25
    assert abs(offsets[1] - offsets[0]) < 0.25


def test_classes_that_hardly_occur_are_left_nearly_as_they_are() -> None:
    said = np.tile([0.9, 0.1], (5, 1))

    offsets, temperature = offsets_and_temperature([(said, np.zeros(5, int))])

    assert max(map(abs, offsets)) < 0.5
    assert abs(np.log(temperature)) < 0.5


def test_a_model_of_one_class_has_nothing_to_correct() -> None:
    assert offsets_and_temperature([(np.ones((10, 1)), np.zeros(10, int))]) == ((), 1.0)
