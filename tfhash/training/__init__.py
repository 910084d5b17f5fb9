"""Training: stages of networks under optimizers, their checkpoints, callbacks and run folder."""
