"""Several processes of one training, as ``torchrun`` starts them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from chammi_fast.extras import require

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(days=1)  # the first process may score all images while the others wait


def this_process() -> PartialState:
    """Join the processes, if there are several, and say which one this is; gloo connects those without a GPU."""
    accelerate = require("accelerate", purpose="training")
    state: PartialState = accelerate.PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    return state


def accelerator() -> Any:
    """Return accelerate's own view of the same processes."""
    accelerate = require("accelerate", purpose="training")
    this_process()
    unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    return accelerate.Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
