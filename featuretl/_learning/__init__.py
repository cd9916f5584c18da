"""Shared by all estimators: labels, groups, folds, blocks of rows, losses and metrics."""
