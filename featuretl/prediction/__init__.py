"""Predictions and scores of fitted models for any number of images."""
