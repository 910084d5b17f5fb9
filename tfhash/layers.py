"""All layers and models of tfhash that Keras can load.

`import tfhash.layers` before `keras.models.load_model`: Keras loads no class that it was not told
of, and this import tells it.
"""

from tfhash.features.descriptors import Gist
from tfhash.networks.divided import DividedDense, DividedHashNetwork
from tfhash.networks.embedding_network import EmbeddingHashNetwork
from tfhash.networks.encoder import FeatureEncoder
from tfhash.networks.features import Standardise
from tfhash.networks.hash_functions import HashFunctions
from tfhash.networks.hash_layer import HashNetwork
from tfhash.networks.image_layers import (
    ApplicationPreprocessing,
    BgrMeanSubtraction,
    GroupedConv2D,
    LocalResponseNormalization,
)

__all__ = [
    "ApplicationPreprocessing",
    "BgrMeanSubtraction",
    "DividedDense",
    "DividedHashNetwork",
    "EmbeddingHashNetwork",
    "FeatureEncoder",
    "Gist",
    "GroupedConv2D",
    "HashFunctions",
    "HashNetwork",
    "LocalResponseNormalization",
    "Standardise",
]
