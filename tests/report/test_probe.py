"""Out-of-fold predictions and learning curves of a linear probe."""

import numpy as np


def test_copies_share_a_fold_and_are_counted(report, page_of, embeddings, photos, path, quick):
    twice, coin = [*range(24), *range(24)], np.random.default_rng(0).integers(0, 2, 48).astype(str)
    found = report(embeddings[twice], [photos[i] for i in twice], coin, path, cv=5)
    assert found["scores"]["accuracy"] < 0.7
    assert found["near_duplicates_across_folds"] == 0
    assert "24 of these 48 images are copies of others" in found["warnings"][0]
    assert "copies share a fold" in page_of(path).text


def test_a_class_in_a_single_group_is_not_called_wrong(report, photos, path, quick):
    y = np.arange(160) % 4
    X = np.random.default_rng(0).normal(size=(160, 8)) + 4 * np.eye(8)[y]
    groups = np.where(y == 3, 99, np.arange(160) // 4 % 10)
    found = report(
        X, [photos[i % 24] for i in range(160)], y.astype(str), path, groups=groups, cv=5
    )
    assert found["scored"] == 120
    assert found["scores"]["accuracy"] > 0.95
    assert len(found["label_errors"]) < 5
    assert "never holds out 1 classes that lie in a single group" in found["scores_are"]


def test_embeddings_are_judged_out_of_fold(
    report, page_of, embeddings, photos, labels, path, quick
):
    wrong = labels.copy()
    wrong[2] = "temple"
    found = report(embeddings, photos, wrong, path)
    assert found["scored"] == 24
    assert found["mistakes"][0]["image"] == photos[2]
    assert found["label_errors"][0]["image"] == photos[2]
    assert found["label_errors"][0]["suggestion"] == "flower"
    assert found["learning_curve"]["sizes"] == [1, 2, 6]
    assert "out-of-fold" in page_of(path).text
    twice = [*range(24), *range(24)]
    like = embeddings[twice] * np.repeat([1, 1.001], 24)[:, None]
    found = report(like, [photos[i] for i in twice], labels[twice], path)
    assert found["near_duplicates_across_folds"] > 0
    assert not found["warnings"]
    groups = np.tile(np.arange(24), 2)
    found = report(
        like, [photos[i] for i in twice], labels[twice], path, groups=groups,
        threshold=0.999,
    )  # fmt: skip
    assert len(found["near_duplicates"]) == 24
    assert found["near_duplicates_across_folds"] == 0
