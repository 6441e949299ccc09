"""Pipeline configs of the Object Detection API: templates, rendering, checking. Pure text, no network."""
