"""Features of the baseline that reads words: what they are made from."""

import numpy as np
import pytest
from preforch_training.statistics import predictors
from preforch_training.statistics.predictors import word_features

TEXTS = ["red apple", "red pear", "green apple", "blue plum plum"]


def test_words_come_from_the_known_texts_alone() -> None:
    known_N = np.array([True, True, True, False])
    features_NV = word_features(TEXTS, known_N).toarray()
    # red, apple, pear, green, and three pairs of words.
    assert features_NV.shape == (4, 7)
    assert (features_NV[3] == 0).all()
    changed_NV = word_features([*TEXTS[:3], "red red red"], known_N).toarray()
    np.testing.assert_array_equal(changed_NV[:3], features_NV[:3])
    assert (changed_NV[3] > 0).sum() == 1


def test_rare_words_are_left_out_on_demand() -> None:
    features_NV = word_features(TEXTS, np.array([True, True, True, False]), min_df=2).toarray()
    assert features_NV.shape == (4, 2)
    assert np.linalg.norm(features_NV[0]) == pytest.approx(1.0)


def test_every_predictor_has_a_name_of_its_own() -> None:
    names = [value for key, value in vars(predictors).items() if key.isupper()]
    assert len(names) == len(set(names)) == 13
