"""The host input pipeline: tf.data decodes, crops and augments on the CPU while the accelerator trains.

    input = host_views(images_or_files, recipe)        # batch["views"]: n augmented views of every image
    input = host_images(files, 256)                    # batch["image"]: decoded alone; the device makes the views
    for batch in input(batch_size=512, seed=0, start_step=1000): ...

An input is `data.batches` with its first argument given: the same order of the images, the same sharing among
processes, and the step number as its only state. Which images a step meets is computed, not shuffled in a buffer, so a
run goes on at any step at once. What is drawn for a view is drawn by the recipe itself, from the same keys as on the
device: device and host make the same views.
"""

from jaxcl.data.host.images import host_images
from jaxcl.data.host.pipeline import Input
from jaxcl.data.host.views import crops_of, crops_whole_images, ends_in_a_space, host_views

__all__ = [
    "Input",
    "crops_of",
    "crops_whole_images",
    "ends_in_a_space",
    "host_images",
    "host_views",
]
