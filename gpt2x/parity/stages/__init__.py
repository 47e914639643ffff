"""The stages of a validation, in the order in which they run and are reported."""

from gpt2x.parity.stages.cache import CACHE
from gpt2x.parity.stages.config import CONFIG
from gpt2x.parity.stages.generation import GENERATION
from gpt2x.parity.stages.gradients import GRADIENTS
from gpt2x.parity.stages.layers import LAYERS
from gpt2x.parity.stages.logits import LOGITS
from gpt2x.parity.stages.loss import LOSS
from gpt2x.parity.stages.padding import PADDING
from gpt2x.parity.stages.sampling import SAMPLING
from gpt2x.parity.stages.stage import ParityStage
from gpt2x.parity.stages.tokenizer import TOKENIZER
from gpt2x.parity.stages.weights import WEIGHTS

STAGES: tuple[ParityStage, ...] = (
    *(CONFIG, TOKENIZER, WEIGHTS, LAYERS, LOGITS, LOSS, GRADIENTS),
    *(CACHE, PADDING, SAMPLING, GENERATION),
)
