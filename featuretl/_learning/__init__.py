"""What every learner reads: labels, groups, folds, rows, metrics."""
