"""The evaluations by name: one table, one signature, the settings written into every result.

    subject = Subject(encoder, train, test)
    PROTOCOLS["knn"](key, subject)                          # embeds the images
    PROTOCOLS["linear"](key, subject)                       # has their features already

    knn, knn200        neighbors                                      class, from features
    linear, transfer   logistic regression, l2 chosen on held-out     class, from features
    linear_sgd         the same by SGD on augmented images            class, from features where there are no views
    linear_moco        so with MoCo's settings                        class
    mlp                one hidden layer, as AMDIM's second probe      class, from features where there are no views
    deep               a residual network on a grid of features       class, from features where there are no views
    fewshot5, 10       5 or 10 labelled images a class                class, from features, by the key
    finetune1, 10      the whole encoder on 1 or 10 % of the labels   class
    finetune100        on all: transfer, where the data is another    class
    finetune_grid      the same, rate and decay chosen on held-out    class
    corruption         the linear classifier on corrupted images      class
    rotation, hue      which of four rotations, of four hue shifts    needs no labels

Those that read features share the subject's; they need no encoder where features were computed elsewhere
(`Subject.of_features`). The same code scores raw pixels (`encoder=lambda x: x.reshape(len(x), -1)`, or the features
`raw_pixels`), an untrained encoder and a trained one, so that their numbers compare.

Every result holds "protocol", "accuracy" (top-1 on the test set, in percent), "standard_error" (of that accuracy over
the draw of the test images, in percent: `100 sqrt(a (1 - a) / n)` where nothing else is said), "train_images",
"test_images", "features" (the width), "settings", "seconds", and what the protocol adds. Those that ask for the class
also hold "top5_accuracy", "mean_class_accuracy" and "by_class" (`figures`); "rotation" and "hue" show every image in
all of their four classes, and hold "by_degrees". The seconds of those from
features count the embedding in, whether it was done for them or for a protocol before; "embed_seconds" is its part.
"""

from jaxcl.evaluate.protocols.results import Result
from jaxcl.evaluate.protocols.table import EACH, PROTOCOLS

__all__ = [
    "EACH",
    "PROTOCOLS",
    "Result",
]
