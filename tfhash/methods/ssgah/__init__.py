"""SSGAH: semi-supervised generative adversarial hashing (Wang et al., ECCV 2018)."""

from tfhash.methods.ssgah.config import SSGAHConfig
from tfhash.methods.ssgah.hasher import SSGAH

__all__ = ["SSGAH", "SSGAHConfig"]
