"""DSH-GANs: deep semantic hashing with generative adversarial networks (Qiu et al., SIGIR 2017)."""

from tfhash.methods.dsh_gan.config import DSHGANConfig
from tfhash.methods.dsh_gan.hasher import DSHGAN

__all__ = ["DSHGAN", "DSHGANConfig"]
