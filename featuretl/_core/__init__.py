"""Utilities that do not depend on images or models: parameters, text, files, statistics."""
