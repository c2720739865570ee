"""The training loop: one forward and one backward pass a batch, in one process or several, resumed exactly.

Several processes are accelerate's business: it needs little beside what timm brings, reads what ``torchrun`` sets, and
leaves the loop to us.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from chammi_fast.errors import TrainingError
from chammi_fast.training.augment import turn, warp
from chammi_fast.training.batches import EpochBatches, Worker, count_steps
from chammi_fast.training.objective import Objective
from chammi_fast.training.optimisation import check_rates, parameter_groups, rate
from chammi_fast.training.processes import accelerator
from chammi_fast.training.tensors import read_tensors, save_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chammi_fast.spec import Spec
    from chammi_fast.training.batches import Part
    from chammi_fast.training.data import TrainingSet
    from chammi_fast.training.network import ChannelAdaptiveNetwork
    from chammi_fast.training.recipe import Recipe

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAVE_EVERY_S = 300.0
BELONGINGS = {
    "recipe": "another recipe",
    "classes": "other classes or data sets",
    "images": "other images",
    "processes": "another number of processes",
}


@dataclass
class Log:
    """What happened in one epoch, so far.

    Attributes
    ----------
    epoch : from 1
    loss : mean over the steps
    learning_rate : of the last step
    images : that were seen, by all processes
    processes : that shared them
    seconds : of training, without evaluation
    waited : seconds of these in which the step waited for images
    score : after this epoch, where it was measured: CPS, or the mean macro F1 of the tasks where there is none
    """

    epoch: int
    loss: float = 0.0
    learning_rate: float = 0.0
    images: int = 0
    processes: int = 1
    seconds: float = 0.0
    waited: float = 0.0
    score: float | None = None


@dataclass
class Place:
    """How far training has come.

    Attributes
    ----------
    epoch, step : of the next batch, from 0
    log : of the epochs that were begun
    """

    epoch: int = 0
    step: int = 0
    log: list[Log] = field(default_factory=list)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, and where it saves.

    Attributes
    ----------
    begun : called once, when nothing stands in the way of training
    progress : called after each step with the epoch and step from 1, the number of steps in an epoch, and the loss
    logged : called after each epoch with the log so far; once more where training is taken up between two epochs, which
        it may have left before
    evaluate : called with the network after an epoch, returns its score
    evaluate_every : epochs between evaluations; 0 for none
    checkpoint : file to take up training again, None to save nothing
    save_every_s : seconds between checkpoints within an epoch
    """

    begun: Callable[[], None] | None = None
    progress: Callable[[int, int, int, float], None] | None = None
    logged: Callable[[list[Log]], None] | None = None
    evaluate: Callable[[ChannelAdaptiveNetwork], float | None] | None = None
    evaluate_every: int = 0
    checkpoint: Path | None = None
    save_every_s: float = SAVE_EVERY_S


def train(
    network: ChannelAdaptiveNetwork,
    spec: Spec,
    sets: Sequence[TrainingSet],
    recipe: Recipe,
    hooks: Hooks | None = None,
) -> tuple[ChannelAdaptiveNetwork, list[Log]]:
    """Train a network, from its start or from where the checkpoint of the same recipe and classes ends.

    Returns
    -------
    The trained network, in evaluation mode (the average of the steps' weights under SWAD), and the log.

    Raises
    ------
    TrainingError
        If there are fewer images than one batch holds, or the checkpoint belongs to another training.
    """
    if recipe.epochs and count_steps(sets, recipe) == 0:
        count = sum(map(len, sets))
        raise TrainingError(f"there are {count} training images, less than one batch of {recipe.batch_size}.")
    trainer = Trainer(network, spec, sets, recipe, hooks or Hooks())
    if hooks is not None and hooks.begun is not None:
        hooks.begun()
    trainer.conclude()  # the last epoch, should it have been stopped before it was scored and logged
    for epoch in range(trainer.place.epoch, recipe.epochs):
        trainer.run_epoch(epoch)
    return trainer.result(), trainer.place.log


class Trainer:
    """A network with all that its training changes; see `train`."""

    def __init__(
        self,
        network: ChannelAdaptiveNetwork,
        spec: Spec,
        sets: Sequence[TrainingSet],
        recipe: Recipe,
        hooks: Hooks,
    ) -> None:
        check_rates(recipe, spec)
        self._accelerator = accelerator()
        # Not accelerate's: it keeps one precision for all that a process ever trains.
        device = self._accelerator.device.type
        self._autocast = torch.autocast(device, PRECISIONS[recipe.precision], enabled=recipe.precision != "fp32")
        self._scaler = torch.amp.GradScaler(device, enabled=recipe.precision == "fp16")
        self._sets, self._recipe, self._hooks = sets, recipe, hooks
        self._steps = max(1, count_steps(sets, recipe))
        processes = self._accelerator.num_processes
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if processes > 1 else 1
        self._worker = Worker(self._accelerator.process_index, processes, local)
        network.train().to(memory_format=torch.channels_last)  # twice as fast on CPUs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            objective = Objective(network, spec, sets, recipe)
        for twin in objective.twin:
            twin.to(self._accelerator.device)
        optimizer = torch.optim.AdamW(parameter_groups(objective, recipe))
        self._objective, self._optimizer = self._accelerator.prepare(objective, optimizer)
        # Without the function, buffers of integers (batch norm has some) cannot be averaged on a GPU.
        averaged = {"avg_fn": get_swa_avg_fn(), "use_buffers": True}  # type: ignore[no-untyped-call]
        self._average = None if recipe.swad_from is None else AveragedModel(network, **averaged)
        self._identity = {
            "recipe": msgspec.json.encode(recipe).decode(),
            "classes": [[one.configuration.name, *one.classes] for one in sets],
            "images": _fingerprint(sets),
            "processes": processes,
        }
        self.place = Place()
        self._resume()

    @property
    def _own(self) -> Objective:
        objective: Objective = self._accelerator.unwrap_model(self._objective)
        return objective

    def run_epoch(self, epoch: int) -> None:
        """Train for one epoch, or for what is left of it."""
        place, hooks = self.place, self._hooks
        if len(place.log) <= epoch:
            place.log.append(Log(epoch + 1))
        log = place.log[epoch]
        batches = EpochBatches(self._sets, self._recipe, epoch, first=place.step, worker=self._worker)
        saved = started = time.perf_counter()
        for parts in batches:
            loss = self._step(epoch, place.step, [self._prepared(part, epoch, place.step) for part in parts])
            log.loss += (loss - log.loss) / (place.step + 1)
            log.learning_rate = self._optimizer.param_groups[0]["lr"]
            log.processes = self._worker.count
            log.images += self._recipe.batch_size
            place.step += 1
            if hooks.progress is not None:
                hooks.progress(epoch + 1, place.step, self._steps, loss)
            now = time.perf_counter()
            if now - saved > hooks.save_every_s and place.step % self._recipe.accumulate == 0:
                log.seconds, log.waited = log.seconds + now - started, log.waited + batches.waited
                started, batches.waited = now, 0.0
                self._save()
                saved = time.perf_counter()
        log.seconds += time.perf_counter() - started
        log.waited += batches.waited
        place.epoch, place.step = epoch + 1, 0
        self._save()
        self.conclude()

    def conclude(self) -> None:
        """Score the epoch that training has just left, if that is due and was not done, and log it.

        Within an epoch, and before the first, there is nothing to conclude.
        """
        place, hooks = self.place, self._hooks
        if place.step or not place.epoch:
            return
        log = place.log[place.epoch - 1]
        due = hooks.evaluate is not None and hooks.evaluate_every and place.epoch % hooks.evaluate_every == 0
        if due and log.score is None:
            if self._accelerator.is_main_process and hooks.evaluate is not None:
                log.score = hooks.evaluate(self.result())
            self._own.network.train()
            self._accelerator.wait_for_everyone()
            self._save()
        if hooks.logged is not None and self._accelerator.is_main_process:
            hooks.logged(place.log)

    def result(self) -> ChannelAdaptiveNetwork:
        """Return the network that training has made so far, in evaluation mode."""
        average = self._average
        network: Any = self._own.network if average is None or average.n_averaged == 0 else average.module
        result: ChannelAdaptiveNetwork = network.eval()
        return result

    def _prepared(self, part: Part, epoch: int, step: int) -> Part:
        """Move a part to the device and bend and turn its images."""
        recipe = self._recipe
        images = part.images.to(self._accelerator.device, non_blocking=True)
        place = 1 + list(self._own.tokens).index(part.configuration)
        generator = torch.Generator().manual_seed(self._seed(epoch, step, place))
        if recipe.tps > 0:
            images = warp(images, generator, recipe.tps)
        if recipe.flips == "all":
            images = turn(images, generator)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = part.labels.to(self._accelerator.device, non_blocking=True)
        return type(part)(part.configuration, images, labels, part.share)

    def _step(self, epoch: int, step: int, parts: list[Part]) -> float:
        recipe = self._recipe
        for group in self._optimizer.param_groups:
            group["lr"] = group["factor"] * rate(recipe, group["peak"], epoch, step, self._steps)
        torch.manual_seed(self._seed(epoch, step, 0))  # of stochastic depth and dropout
        with self._autocast:
            loss = self._objective(parts)
        group_start = step - step % recipe.accumulate
        self._accelerator.backward(self._scaler.scale(loss / min(recipe.accumulate, self._steps - group_start)))
        value = float(self._accelerator.reduce(loss.detach(), "mean"))
        if (step + 1) % recipe.accumulate == 0 or step + 1 == self._steps:
            if not self._scaler.is_enabled():
                value = value if self._gradients_are_finite() else math.nan
            self._check(value, epoch, step)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad()
            if self._average is not None and epoch + step / self._steps >= (recipe.swad_from or 0):
                self._average.update_parameters(self._own.network)
        self._check(value, epoch, step)
        return value

    def _gradients_are_finite(self) -> bool:
        """Look before the step: weights that are no numbers must never take the place of a good checkpoint's."""
        gradients = [
            one.grad for group in self._optimizer.param_groups for one in group["params"] if one.grad is not None
        ]
        return bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all()) if gradients else True

    @staticmethod
    def _check(value: float, epoch: int, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"loss or gradients are no numbers in epoch {epoch + 1}, step {step + 1}: "
                f"try a lower learning_rate or fp32."
            )

    def _seed(self, *place: int) -> int:
        return int(np.random.SeedSequence([self._recipe.seed, *place, self._worker.rank]).generate_state(1)[0])

    def _save(self) -> None:
        path = self._hooks.checkpoint
        if path is None or not self._accelerator.is_main_process:
            return
        content = {
            **self._identity,
            "place": msgspec.json.encode(self.place).decode(),
            "objective": self._own.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        save_tensors(content, path)

    def _resume(self) -> None:
        path = self._hooks.checkpoint
        if path is None or not path.is_file():
            return
        content = read_tensors(path)
        for key, what in BELONGINGS.items():
            if content.get(key) != self._identity[key]:
                raise TrainingError(f"{path}: belongs to a training with {what}: choose another folder, or remove it.")
        self._own.load_state_dict(content["objective"])
        self._optimizer.load_state_dict(content["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(content["average"])
        self._scaler.load_state_dict(content["scaler"])
        self.place = msgspec.json.decode(content["place"], type=Place)


def _fingerprint(sets: Sequence[TrainingSet]) -> str:
    """Return a hash of what is trained on, but for the folder that it is in."""
    content = [
        [Path(path).name for path in one.paths]
        + [one.labels.tolist(), one.sizes.tolist(), one.configuration.mean, one.configuration.std]
        for one in sets
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
