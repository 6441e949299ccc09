"""Labelled images to TFRecords and a label map: no network, no TensorFlow."""
