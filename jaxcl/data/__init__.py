"""Where images come from, and in which order."""

from jaxcl.data.arrays import from_arrays as from_arrays
from jaxcl.data.batches import batches as batches
from jaxcl.data.batches import index_batches as index_batches
from jaxcl.data.batches import indices as indices
from jaxcl.data.batches import order as order
from jaxcl.data.batches import prefetch as prefetch
from jaxcl.data.digits import scattered_digits as scattered_digits
from jaxcl.data.host import crops_of as crops_of
from jaxcl.data.host import crops_whole_images as crops_whole_images
from jaxcl.data.host import host_images as host_images
from jaxcl.data.host import host_views as host_views
from jaxcl.data.inputs import INPUTS as INPUTS
from jaxcl.data.inputs import InputPipeline as InputPipeline
from jaxcl.data.inputs import input_pipeline as input_pipeline
from jaxcl.data.lazy import Data as Data
from jaxcl.data.lazy import open as open
from jaxcl.data.load import load as load
from jaxcl.data.stream import as_images as as_images
from jaxcl.data.stream import find_images as find_images
from jaxcl.data.stream import take as take
from jaxcl.data.suppression import digit_on_image as digit_on_image
from jaxcl.data.suppression import multi_digits as multi_digits
from jaxcl.data.suppression import presence as presence
from jaxcl.data.suppression import rand_bits as rand_bits
from jaxcl.data.suppression import two_digits as two_digits
