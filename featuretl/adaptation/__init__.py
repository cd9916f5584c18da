"""When the images to predict look different from those that were labelled."""
