"""SSDH: semi-supervised deep hashing (Zhang & Peng, TCSVT 2017)."""

from tfhash.methods.ssdh.config import SSDHConfig
from tfhash.methods.ssdh.hasher import SSDH

__all__ = ["SSDH", "SSDHConfig"]
