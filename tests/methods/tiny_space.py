"""A space of GANs whose items are vectors, for stages with networks of a few weights."""

from tfhash.hashers.gan_spaces import GANSpace


class VectorSpace(GANSpace):
    """H sees items [n, item_size], G and D [n, gan_size]; a subclass leads from one to the other.

    It makes no network and reads no image: a stage does not ask for these.
    """

    def __init__(self, item_size: int, gan_size: int):
        super().__init__(settings=None, image_size=1, seed=0)
        self.item_shape, self.gan_shape = (item_size,), (gan_size,)

    def _not_asked_for(self, *_):
        raise AssertionError("a stage makes no network and reads no image")

    inputs = hash_network = encoder = embed = _not_asked_for
    describe = pictures = generator = condition = trunk = _not_asked_for
