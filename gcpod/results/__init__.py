"""What a run produced: TensorBoard files and metrics."""
