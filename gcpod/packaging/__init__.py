"""What a job imports: source distributions of object_detection, slim and the launcher, and pycocotools."""
