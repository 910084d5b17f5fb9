"""DRSCH: bit-scalable deep hashing with regularised similarity (Zhang et al., TIP 2015).

The scores of the hash layer pass through a tanh that gets steeper, each bit has a weight in the
distance, all triplets of a batch are ranked by that distance, and a Laplacian term keeps images
together that look alike. DSCH is the same without that term.

No public code was found. The equations are from memory of the paper, and so is what is said of it
here. What differs from it, or is a choice of this library:

- codes are plain signs, compared by the Hamming distance, as those of every other method here. The
  weights of bits serve the learning alone: no search is weighted, and no code is cut by them;
- distances count bits, so that the paper's max(C, .) with C = -k/2 is a hinge of margin k/2, less a
  constant; terms are means and not sums;
- how steep the tanh is at which time, the weight of the Laplacian term, how many neighbours an
  image has, all of them of weight 1, and the optimizer;
- any backbone of the house stands in for the paper's small network, which learns from nothing.
"""

from tfhash.methods.drsch.config import DRSCHConfig
from tfhash.methods.drsch.hasher import DRSCH

__all__ = ["DRSCH", "DRSCHConfig"]
