"""A second fit starts without the fitted attributes of the first."""

from featuretl._learning.refit import forget


class Estimator:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_fitted_attributes_are_forgotten_except_for_those_kept():
    estimator = Estimator(C=1, n_features_in_=3, path_=0, classes_=1, _cache=2, _other=3, _x_=4)
    forget(estimator, "_cache", "_never_set", keep=["classes_"])
    assert vars(estimator) == {"C": 1, "classes_": 1, "_other": 3, "_x_": 4}
    forget(estimator)  # has no effect before the next fit
    assert "classes_" in vars(estimator)


def test_an_estimator_that_was_never_fitted_stays_as_it_is():
    estimator = Estimator(C=1, set_by_a_subclass_=2)
    forget(estimator)
    assert vars(estimator) == {"C": 1, "set_by_a_subclass_": 2}
