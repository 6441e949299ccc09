"""Pretrained detectors of the Object Detection API's model zoo: what there is, and bringing one to this machine."""
