"""When labels are few: which images to label next, and what accuracy more labels would give."""
