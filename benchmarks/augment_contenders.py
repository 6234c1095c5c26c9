"""The contenders of augment.py: (name, images or files, size) -> a function that makes two views of every image once,
and the seconds that it took to compile."""

from __future__ import annotations

import io
import time
from pathlib import Path

# Task -> contenders -> images a turn. The first of a task is what the others are compared with.
TASKS = {
    "32": {
        "google style, tf.data": 256,
        "jaxcl, exact": 512,
        "jaxcl, fused": 512,
        "jaxcl, fused, bfloat16": 512,
        "jaxcl, host": 512,
        "dm-pix": 256,
        "torchvision, PIL": 128,
        "torchvision v2, tensors": 128,
        "lightly": 128,
        "kornia": 256,
        "albumentations": 256,
    },
    "224": {
        "google style, tf.data": 64,
        "jaxcl, exact": 64,
        "jaxcl, fused": 64,
        "jaxcl, fused, bfloat16": 64,
        "jaxcl, host": 256,
        "dm-pix": 16,
        "torchvision, PIL": 16,
        "torchvision v2, tensors": 16,
        "lightly": 32,
        "kornia": 16,
        "albumentations": 64,
    },
    "jpeg": {
        "google style, tf.data": 64,
        "jaxcl, host": 256,
        "jaxcl, host, decoding only": 256,
        "torchvision, PIL": 16,
        "albumentations": 64,
    },
}


def jaxcl(name, images, size):
    import jax.numpy as jnp

    from jaxcl import augment

    recipe = augment.simclr(size)
    if "fused" in name:
        recipe = augment.fuse(recipe, dtype=jnp.bfloat16 if "bfloat16" in name else jnp.float32)
    return compiled(augment.two_views(recipe), images)


def compiled(views, images):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_compilation_cache", False)
    batch = {"image": jnp.asarray(images), "index": jnp.arange(len(images))}
    key = jax.random.key(0)
    start = time.process_time()
    program = jax.jit(views).lower(key, batch).compile()
    seconds = time.process_time() - start
    return lambda: jax.block_until_ready(program(key, batch)), seconds


def dm_pix(name, images, size):
    """What one writes first: pix ops and jax.image, an image at a time, under vmap."""
    import dm_pix as pix
    import jax
    import jax.numpy as jnp

    from jaxcl import augment

    box = augment.random_resized_crop(size, distribution=augment.uniform_height)

    def one(key, image):
        keys = jax.random.split(key, 12)
        crop = box.sample(keys[0], image.shape)
        scale = size / jnp.stack([crop.height, crop.width])
        start = -jnp.stack([crop.top, crop.left]) * scale
        x = image.astype(jnp.float32) / 255
        x = jax.image.scale_and_translate(x, (size, size, 3), (0, 1), scale, start, "cubic", antialias=False)
        x = pix.random_flip_left_right(keys[1], x)
        changes = [
            lambda x: x * jax.random.uniform(keys[2], (), minval=0.2, maxval=1.8),
            lambda x: pix.random_contrast(keys[3], x, 0.2, 1.8),
            lambda x: pix.random_saturation(keys[4], x, 0.2, 1.8),
            lambda x: pix.random_hue(keys[5], x, 0.2),
        ]
        jittered = x
        order = jax.random.permutation(keys[6], 4)
        for place in range(4):
            jittered = jnp.clip(jax.lax.switch(order[place], changes, jittered), 0, 1)
        x = jnp.where(jax.random.bernoulli(keys[7], 0.8), jittered, x)
        gray = jnp.broadcast_to(pix.rgb_to_grayscale(x), x.shape)
        x = jnp.clip(jnp.where(jax.random.bernoulli(keys[8], 0.2), gray, x), 0, 1)
        sigma = jax.random.uniform(keys[9], (), minval=0.1, maxval=2.0)
        blurred = pix.gaussian_blur(x, sigma, kernel_size=kernel(size), padding="SAME")
        return jnp.where(jax.random.bernoulli(keys[10], 0.5), blurred, x)

    def views(key, batch):
        keys = jax.random.split(key, (2, len(batch["image"])))
        return tuple(jax.vmap(one)(keys[view], batch["image"]) for view in range(2))

    return compiled(views, images)


def google_style(name, images, size):
    """The way of google-research/simclr's data_util.py, in tf.data: an image at a time, blur on the whole batch."""
    import tensorflow as tf

    def crop(image):
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        (top, left, _), (height, width, _) = tf.unstack(begin), tf.unstack(extent)
        image = tf.image.crop_to_bounding_box(image, top, left, height, width)
        return tf.image.resize([image], (size, size), tf.image.ResizeMethod.BICUBIC)[0]

    def jitter(image):
        def change(i, x):
            def first():
                return tf.cond(
                    i < 1,
                    lambda: x * tf.random.uniform([], 0.2, 1.8),
                    lambda: tf.image.random_contrast(x, 0.2, 1.8),
                )

            def second():
                return tf.cond(
                    i < 3,
                    lambda: tf.image.random_saturation(x, 0.2, 1.8),
                    lambda: tf.image.random_hue(x, 0.2),
                )

            return tf.cond(i < 2, first, second)

        order = tf.random.shuffle(tf.range(4))
        for place in range(4):
            image = tf.clip_by_value(change(order[place], image), 0.0, 1.0)
        return image

    def sometimes(probability, function, x):
        return tf.cond(tf.random.uniform([]) < probability, lambda: function(x), lambda: x)

    def view(image):
        x = crop(image)
        x = tf.image.random_flip_left_right(x)
        x = sometimes(0.8, jitter, x)
        x = sometimes(0.2, lambda x: tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(x)), x)
        return tf.clip_by_value(tf.reshape(x, (size, size, 3)), 0.0, 1.0)

    def blur(x):
        radius = size // 10 // 2
        sigma = tf.random.uniform([], 0.1, 2.0)
        taps = tf.exp(-(tf.range(-radius, radius + 1, dtype=tf.float32) ** 2) / (2 * sigma**2))
        taps = taps / tf.reduce_sum(taps)
        y = x
        for shape in ((-1, 1), (1, -1)):
            kernel = tf.tile(tf.reshape(taps, (*shape, 1, 1)), (1, 1, 3, 1))
            y = tf.nn.depthwise_conv2d(y, kernel, (1, 1, 1, 1), "SAME")
        return tf.where(tf.random.uniform((tf.shape(x)[0], 1, 1, 1)) < 0.5, y, x)

    def pair(image):
        if image.dtype == tf.string:
            image = tf.io.decode_jpeg(image, channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        return view(image), view(image)

    rows = tf.data.Dataset.from_tensor_slices(images).repeat().map(pair)
    return drained(
        rows.batch(64, drop_remainder=True).map(lambda a, b: (blur(a), blur(b))), len(images) // 64
    )


def drained(batches, turns):
    """A function that takes `turns` batches of a tf.data pipeline, on one thread."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    iterator = iter(batches.with_options(options).as_numpy_iterator())

    def once():
        for _ in range(turns):
            next(iterator)

    return once, None


def task_of(images, size):
    return "jpeg" if isinstance(images, Path) else str(size)


def jaxcl_host(name, images, size):
    from jaxcl import augment, data

    if isinstance(images, Path):
        source = data.find_images(f"folder:{images}", "train")
    else:
        source = data.from_arrays(images, name="benchmark")
    if "decoding" in name:
        start = data.host_images(source, 256, threads=1)
    else:
        start = data.host_views(source, augment.simclr(size), threads=1)
    batches = start(batch_size=64, seed=0)

    def once():
        for _ in range(TASKS[task_of(images, size)][name] // 64):
            next(batches)

    return once, None


def kernel(size):
    return 2 * (size // 20) + 1


def torch_by_image(transform, images, to_image):
    def once():
        for image in images:
            image = to_image(image)
            transform(image), transform(image)

    return once, None


def torchvision_pil(name, images, size):
    from torchvision import transforms as T

    steps = [
        T.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.GaussianBlur(kernel(size), (0.1, 2.0))], 0.5),
        T.ToTensor(),
    ]
    return torch_by_image(T.Compose(steps), images, pil)


def pil(image):
    from PIL import Image

    return (
        Image.open(io.BytesIO(image)).convert("RGB") if isinstance(image, bytes) else Image.fromarray(image)
    )


def torchvision_v2(name, images, size):
    import torch
    from torchvision.transforms import v2 as T

    steps = [
        T.RandomResizedCrop(
            size, scale=(0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC, antialias=True
        ),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.GaussianBlur(kernel(size), (0.1, 2.0))], 0.5),
        T.ToDtype(torch.float32, scale=True),
    ]
    return torch_by_image(
        T.Compose(steps), images, lambda x: torch.from_numpy(x).permute(2, 0, 1).contiguous()
    )


def lightly(name, images, size):
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=size, normalize=None)

    def once():
        for image in images:
            transform(pil(image))

    return once, None


def kornia(name, images, size):
    import torch
    from kornia import augmentation as K

    steps = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0), resample="BICUBIC", cropping_mode="resample"),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel(size), kernel(size)), (0.1, 2.0), p=0.5),
    )

    def once():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            steps(torch.cat([x, x]))

    return once, None


def albumentations(name, images, size):
    import albumentations as A
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    steps = [
        A.RandomResizedCrop(size=(size, size), scale=(0.08, 1.0), interpolation=cv2.INTER_CUBIC),
        A.HorizontalFlip(),
        A.ColorJitter((0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2), p=0.8),
        A.ToGray(p=0.2),
        A.GaussianBlur(blur_limit=(kernel(size), kernel(size)), sigma_limit=(0.1, 2.0), p=0.5),
    ]
    transform = A.Compose(steps)

    def once():
        for image in images:
            if isinstance(image, bytes):
                image = cv2.cvtColor(
                    cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
                )
            for _ in range(2):
                transform(image=image)["image"].astype(np.float32) / 255

    return once, None


BUILDERS = {
    "dm-pix": dm_pix,
    "google style, tf.data": google_style,
    "torchvision, PIL": torchvision_pil,
    "torchvision v2, tensors": torchvision_v2,
    "lightly": lightly,
    "kornia": kornia,
    "albumentations": albumentations,
    "jaxcl, host": jaxcl_host,
    "jaxcl, host, decoding only": jaxcl_host,
    "jaxcl, exact": jaxcl,
    "jaxcl, fused": jaxcl,
    "jaxcl, fused, bfloat16": jaxcl,
}
