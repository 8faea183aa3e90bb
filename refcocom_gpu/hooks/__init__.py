"""What plugs into a training framework: data for its validation loop, and metrics of its batches."""
