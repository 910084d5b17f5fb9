"""The settings of deep methods: those of all of them, and those of one's hash network."""

from __future__ import annotations

from dataclasses import dataclass

from tfhash.data.pipeline import FILLS
from tfhash.errors import UserError
from tfhash.hashers.backbone_settings import BackboneSettings
from tfhash.hashers.spaces import SPACES
from tfhash.settings import Configuration, setting
from tfhash.training.optimizers import HASH_OPTIMIZERS, SCHEDULES
from tfhash.training.strategies import STRATEGIES

VIEWS = ("weak", "strong")
TRIPLETS = ("in_batch", "sampled")


@dataclass(frozen=True)
class DeepSettings(BackboneSettings):
    """What the deep methods share."""

    frozen_through: str | None = setting(
        None, "last layer of the backbone that is not trained", group="network"
    )
    standardise_features: bool = setting(
        False,
        "features of a backbone that learns have mean 0 and deviation 1 before training, over the "
        "images learned from; without it trained weights give scores at which a sigmoid is flat",
        group="network",
    )
    mirrored_codes: bool = setting(
        False,
        "the code of an image is that of the mean of H(x) and of H of its mirror image, in twice "
        "the time (with --flip; space=pixels)",
        group="network",
    )
    trunk_rate: float = setting(
        1.0, "the learning rate of the backbone, in parts of that of H", above=0, group="training"
    )
    trunk_from: int = setting(
        0, "the update from which on the backbone learns", least=0, group="training"
    )
    warmup_steps: int = setting(
        0, "updates in which the learning rate of H rises from 0", least=0, group="training"
    )
    clip_norm: float | None = setting(
        None, "most norm of the gradient of H, over all its weights", above=0, group="training"
    )
    steps: int = setting(2000, "updates of the hash network", least=1, group="training")
    batch_size: int = setting(64, "labelled images a batch", least=1, group="training")
    unlabelled_batch_size: int = setting(64, "unlabelled images a batch", least=0, group="training")
    groups: int = setting(
        1,
        "parts of a batch that form triplets among themselves; a multiple of the replicas",
        least=1,
        group="training",
    )
    triplets: str = setting(
        "in_batch",
        "in_batch: an image stands in many triplets; sampled: each triplet brings its own images",
        choices=TRIPLETS,
        group="training",
    )
    triplets_per_query: int = setting(
        8, "triplets of which an image is the query (in_batch)", least=1, group="training"
    )
    flip: bool = setting(False, "augmentation: random horizontal flips", group="training")
    shift: int = setting(
        1, "augmentation: random shifts by up to this many px", least=0, group="training"
    )
    shift_fill: str = setting(
        "repeat",
        "what a shift lets in: repeat, the edge; reflect, what is beside it, mirrored",
        choices=FILLS,
        group="training",
    )
    view: str = setting(
        "weak",
        "augmentation of labelled images: weak, flips and shifts; strong, brightness, contrast and "
        "colours too, and a square cut out",
        choices=VIEWS,
        group="training",
    )
    unlabelled_view: str = setting(
        "weak",
        "the same of unlabelled images, as H sees them; G and D see weak views",
        choices=VIEWS,
        group="training",
    )
    strength: float = setting(
        0.4,
        "of strong views: brightness, contrast and colours change by up to this part",
        least=0,
        below=1,
        group="training",
    )
    cut_out: float = setting(
        0.375,
        "of strong views: side of the square, in parts of the image's",
        least=0,
        below=1,
        group="training",
    )
    checkpoint_every: int = setting(
        200, "steps between checkpoints, log lines and validations", least=1, group="training"
    )
    strategy: str = setting(
        "one_device", "one_device, mirrored or multi_worker", choices=STRATEGIES, group="training"
    )
    worker_wait: int = setting(
        600,
        "seconds that a worker waits for the others when it starts (multi_worker)",
        least=1,
        group="training",
        decides=False,
    )
    mixed_bfloat16: bool = setting(
        False, "compute in bfloat16, keep weights and heads in float32", group="training"
    )
    xla: bool = setting(
        False, "compile the training step with XLA (one_device only)", group="training"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "unlabelled_batch_size"):
            if getattr(self, name) % self.groups:
                raise UserError(
                    f"`{name}`: {getattr(self, name)}; allowed: multiples of `groups`={self.groups}"
                )
        if self.mirrored_codes and not self.flip:
            raise UserError(
                "`mirrored_codes`: True; allowed with `flip`, for H has to learn mirror images too"
            )
        if self.xla and self.strategy != "one_device":
            raise UserError(f"`xla`: not with `strategy`={self.strategy}; allowed: one_device")

    @property
    def group_size(self) -> int:
        """Labelled images of a group."""
        return self.batch_size // self.groups

    @property
    def unlabelled_group_size(self) -> int:
        """Unlabelled images of a group."""
        return self.unlabelled_batch_size // self.groups

    @property
    def policy(self) -> str:
        """The Keras dtype policy that networks are built under."""
        return "mixed_bfloat16" if self.mixed_bfloat16 else "float32"


@dataclass(frozen=True)
class HashConfig(Configuration):
    """The hash network H of a method, and its optimizer; each method may have other defaults."""

    space: str = setting(
        "pixels",
        "pixels; or features: the networks work on those of the frozen backbone",
        choices=SPACES,
    )
    hash_optimizer: str = setting(
        "sgd", "optimizer of H: sgd (momentum .9) or adamw", choices=HASH_OPTIMIZERS
    )
    hash_learning_rate: float = setting(
        1e-4, "learning rate of H", least=0, search=(5e-4, 1e-3, 2e-3, 5e-3)
    )
    hash_schedule: str = setting(
        "constant",
        "constant; cosine: the rate falls to 0; step: to a tenth after hash_decay_steps",
        choices=SCHEDULES,
    )
    hash_decay_steps: int = setting(
        10000, "updates at the full learning rate of H (step)", least=1, open=True
    )
    weight_decay: float = setting(0.0, "weight decay of H", least=0, open=True)
    hidden_units: int = setting(
        0, "units of a ReLU layer before the hash layer; 0 for none", least=0
    )
    dropout: float = setting(
        0.0,
        "dropout in H before the hash layer",
        least=0,
        below=1,
        search=(0.0, 0.3, 0.5),
        open=True,
    )
    centred_start: bool = setting(
        False,
        "the biases of the hash layer start where the scores of the labelled images have a mean of "
        "0; without it all codes start alike where features have much in common",
        search=(False, True),
    )
