from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl.heads.linear import LinearProbeClassifier


@parametrize_with_checks(
    [LinearProbeClassifier(), LinearProbeClassifier("cv", cv=3, calibrate=True)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
