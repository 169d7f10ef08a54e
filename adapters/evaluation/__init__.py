"""Labelled images in, accuracy and calibration out. Offline: nothing here is imported while serving."""
