"""Starts a trainer module inside a job, with the packages and the compatibility it needs.

This package runs on the worker, never in the client: it may import TensorFlow and knows nothing of gcpod.
"""
