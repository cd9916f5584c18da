"""The ground floor: parameters, text, files, statistics. It knows nothing of images or models."""
