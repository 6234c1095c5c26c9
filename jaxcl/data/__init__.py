"""Where images come from, and in which order."""

from jaxcl.data.arrays import from_arrays
from jaxcl.data.batches import batches, index_batches, indices, order, prefetch
from jaxcl.data.digits import scattered_digits
from jaxcl.data.host import crops_of, crops_whole_images, host_images, host_views
from jaxcl.data.inputs import INPUTS, InputPipeline, input_pipeline
from jaxcl.data.lazy import Data, open
from jaxcl.data.load import load
from jaxcl.data.objectnet import objectnet13
from jaxcl.data.stream import as_images, find_images, take
from jaxcl.data.suppression import digit_on_image, multi_digits, presence, rand_bits, two_digits

__all__ = [
    "Data",
    "INPUTS",
    "InputPipeline",
    "as_images",
    "batches",
    "crops_of",
    "crops_whole_images",
    "digit_on_image",
    "find_images",
    "from_arrays",
    "host_images",
    "host_views",
    "index_batches",
    "indices",
    "input_pipeline",
    "load",
    "multi_digits",
    "objectnet13",
    "open",
    "order",
    "prefetch",
    "presence",
    "rand_bits",
    "scattered_digits",
    "take",
    "two_digits",
]
