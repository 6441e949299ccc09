"""Tests of gcpod.data, gcpod.records and gcpod.wire."""
