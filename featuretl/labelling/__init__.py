"""When labels are few: which images to label next."""
