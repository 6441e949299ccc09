"""The dataset build as an Apache Beam pipeline, for datasets beyond one machine: the same bytes by many workers."""
