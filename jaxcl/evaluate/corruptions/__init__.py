"""Images as they are met outside: 15 corruptions in 5 severities (Hendrycks and Dietterich 2019, "Benchmarking neural
network robustness to common corruptions and perturbations", arXiv:1903.12261), made on the device for any image size.

A corruption is a pure function (key, image [h, w, c] in [0, 1], severity 1 to 5) -> image in [0, 1]:

    CORRUPTIONS["fog"].apply(key, image, severity)
    corrupt(key, "fog", images, severity=3)                 # a whole data set, uint8 [n, h, w, c]

Severities. Images of up to 64 rows take the constants of CIFAR-10-C, larger ones those of ImageNet-C; both were read
in the authors' published programs. What is a length in pixels is scaled by height / 32 and height / 224, which is ours
(at 32 and 224 rows the constants are the published ones; for 64 pixels the authors have a table of its own).

What is the published definition, and what is not:

    as published      Gaussian, shot and impulse noise, defocus and zoom blur, brightness, contrast, pixelate
    as published, by our reading of the library that they call
                      motion blur and snow's flakes (ImageMagick's offsets and weights), elastic transform (without
                      OpenCV's rounding of positions to 1/32 pixel), JPEG (libjpeg's tables, chroma at half resolution)
    fog               as published; the random numbers are drawn in another order
    glass blur        pixels take a neighbor's color all at once. The published program walks from pixel to pixel, and
                      where it means to swap two it copies one (arrays in Python); for CIFAR-10's displacement of a
                      pixel that is the same, for larger ones it copies some of the copies
    frost             ours altogether: the authors lay photographs of ice over the image, we a drawn texture of ridges
                      with their weights. Its severity is not comparable with theirs

So a table made with these compares encoders with one another; beside published numbers, say that the images are others.
"""

from jaxcl.evaluate.corruptions.table import CORRUPTIONS, SEVERITIES, Corruption, corrupt

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "corrupt"]
