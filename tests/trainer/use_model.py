"""Runs in the trainer's runtime: an exported SavedModel detects on pictures; prints each best guess as JSON."""

import json
import sys

import numpy as np
import tensorflow as tf
from PIL import Image

model = tf.saved_model.load(sys.argv[1])
guesses = []
for path in sys.argv[2:]:
    picture = np.array(Image.open(path).convert("RGB"))
    found = model(tf.convert_to_tensor(picture[None], tf.uint8))
    guesses.append({
        "box": found["detection_boxes"][0, 0].numpy().tolist(),
        "label": int(found["detection_classes"][0, 0]),
        "score": float(found["detection_scores"][0, 0]),
    })
sys.stdout.write("\n" + json.dumps(guesses) + "\n")
