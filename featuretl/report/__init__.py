"""What is right and wrong with a model and its images: findings, figures, one page."""
