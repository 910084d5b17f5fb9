"""Hashers: what learns codes. The contract, and what shallow, deep and GAN methods stand on."""
