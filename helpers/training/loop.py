"""The one training loop of all experiments, on one rank or several."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from helpers.devices import copied_ahead, training_algorithms
from helpers.training import distributed
from helpers.training.evaluation import autocast, clip_bar
from helpers.training.run import Run
from helpers.training.sampling import TrainingBatches
from models import interrupts
from models.base import TaggingNetwork
from models.checkpoints import Checkpoint, CheckpointError
from models.config import is_number, is_whole
from models.errors import UserError
from models.image import ImageModel
from models.interrupts import Interruption
from models.waveform import WaveformModel

MAX_SKIPPED_STEPS = 20  # in a row

logger = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Any], dict[str, Tensor]]


@dataclass
class Progress:
    """How far a training has come, and what the epoch under way has summed up."""

    epoch: int = 0
    step: int = 0
    skipped: int = 0  # steps of this epoch
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each loss, over the steps that were not skipped
    seconds: float = 0.0  # spent training in this epoch
    epochs_since_best: int = 0

    def check(self, steps: int) -> None:
        """Raise ValueError for what no training of so many steps an epoch writes."""
        counts = (self.epoch, self.step, self.skipped, self.skipped_in_a_row, self.epochs_since_best)
        numbers = (self.seconds, *self.sums.values())
        if not all(is_whole(count) and count >= 0 for count in counts) or self.step > steps or not all(map(is_number, numbers)):
            raise ValueError(f"its progress is {self!r:.200}")


def to_device(clips: Any, device: torch.device) -> tuple[Any, list[Tensor]]:
    """Return a collated named tuple with its tensors on the device, where names cannot go, and these tensors."""
    copies = {field: value.to(device, non_blocking=True) for field, value in clips._asdict().items() if isinstance(value, Tensor)}
    return clips._replace(**copies), list(copies.values())


class _Stepper:
    """One step of the optimizer, written once for every precision, number of micro-batches and number of ranks."""

    def __init__(
        self,
        model: WaveformModel | ImageModel,
        training_loss: Loss,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        precision: str,
        compile_network: bool,
        forward: Callable[[TaggingNetwork], nn.Module] | None = None,
    ) -> None:
        self.device = model.device
        self.training_loss = training_loss
        self.optimizer = optimizer
        self.autocast = autocast(self.device, precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.network: nn.Module = model.network if forward is None else forward(model.network)
        self.distributed: DistributedDataParallel | None = None
        if distributed.world_size() > 1:
            self.network = self.distributed = distributed.replicate(self.network)
        if compile_network:  # also what gathers gradients, so that the compiler can cut its graphs where they are sent
            self.network = torch.compile(self.network, dynamic=True)  # once, for batches and clips of all sizes
        self.model = model
        self.average = average
        self.parameters = list(model.network.parameters())
        # Statistics and counters of batch norms, which a bad batch would spoil for good; by type, as foreach operations are fast.
        self.buffers = [[b for b in model.network.buffers() if b.is_floating_point() == floats] for floats in (True, False)]
        self.good_buffers = [[buffer.clone() for buffer in buffers] for buffers in self.buffers]

    def __call__(
        self, micro_batches: Iterator[Any], batches: TrainingBatches, step: int, interruption: Interruption
    ) -> tuple[dict[str, float], bool, bool]:
        """Return the step's losses, means over the whole batch, whether they and the gradients were finite, and whether to end.

        Micro-batches are on the device. If losses or gradients were not finite, the step was skipped. In float16 that is also how
        the scale of the loss finds its size. All ranks end behind the same step, also where a signal reached one of them alone.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number in range(batches.accumulate):
            clips = next(micro_batches)
            batches.seed_micro_batch(step, number)
            if self.distributed is not None:
                self.distributed.require_backward_grad_sync = number == batches.accumulate - 1
            with self.autocast:
                losses = self.training_loss(self.network, clips)
            self.scaler.scale(losses["loss"] / batches.accumulate).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / batches.accumulate
        self.scaler.unscale_(self.optimizer)
        gradient_norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        ends = torch.full_like(gradient_norm, float(interruption.number is not None))
        *values, norm, ends = distributed.mean(torch.stack([*sums.values(), gradient_norm, ends])).tolist()  # waits for the GPU
        means = dict(zip(sums, values, strict=True))
        finite = all(map(math.isfinite, [*values, norm]))
        if finite:
            self.optimizer.step()  # `scaler.step` would ask the GPU once more whether the gradients are finite
        self.scaler.update()
        if finite and self.average is not None:
            self.average.update_parameters(self.model.network)
        self._copy_buffers(back=not finite)
        return means, finite, ends > 0

    def _copy_buffers(self, *, back: bool = False) -> None:
        """Remember the buffers as they are, or set them back to what was remembered."""
        for buffers, good in zip(self.buffers, self.good_buffers, strict=True):
            torch._foreach_copy_(*(buffers, good) if back else (good, buffers))

    @property
    def result(self) -> TaggingNetwork:
        """What is evaluated and kept: the network or, where there is one, the average of its weights."""
        return self.model.network if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """What a resumed run needs next to the weights of `result`; the scaler's is empty in another precision than float16."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        if self.average is not None:
            state |= {"network": self.model.network.state_dict(), "averaged": int(self.average.n_averaged)}
        return state

    def restore(self, result: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Resume from the weights of `result` and a `state`; what all raises for those of another training is not one class.

        Of the optimizer only what it has summed up is restored: its options are those of the command line.
        """
        self.result.load_state_dict(result)
        if self.average is not None:
            self.model.network.load_state_dict(state["network"])
            self.average.n_averaged.fill_(state["averaged"])
        self._copy_buffers()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": self._moments(state["optimizer"]["state"]), "param_groups": groups})
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _moments(self, stored: dict[int, dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """Return Adam's state for each parameter as it is; what does not fit raises, see `restore`."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for number, values in stored.items():
            shapes = {"step": (), "exp_avg": parameters[number].shape, "exp_avg_sq": parameters[number].shape}
            if {name: tuple(value.shape) for name, value in values.items()} != {name: tuple(shapes[name]) for name in shapes}:
                raise ValueError(f"the optimizer's state of parameter {number} has other shapes")
            is_whole_tensor = all(
                value.numel() * value.element_size() <= value.untyped_storage().nbytes() for value in values.values()
            )
            if not is_whole_tensor or not all(value.isfinite().all() for value in values.values()):
                raise ValueError(f"the optimizer's state of parameter {number} is not finite")
        return stored

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Give every rank the mean of all ranks' batch-norm statistics."""
        if distributed.world_size() > 1:
            averaged = self.average.module.buffers() if self.average is not None else ()
            for buffer in (*self.buffers[0], *filter(torch.is_floating_point, averaged)):
                buffer.copy_(distributed.mean(buffer))
            self._copy_buffers()


def fit(
    model: WaveformModel | ImageModel,
    loader: DataLoader,
    training_loss: Loss,
    evaluate: Callable[[], dict[str, float]],
    *,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    n_epochs: int,
    run: Run,
    selection: str,
    patience: int | None = None,
    average: AveragedModel | None = None,
    precision: str = "fp32",
    compile_network: bool = False,
    save_minutes: float = 10.0,
    start_epoch: Callable[[int], None] | None = None,
    forward: Callable[[TaggingNetwork], nn.Module] | None = None,
    deterministic: bool = False,
) -> dict[str, float]:
    """Train up to epoch `n_epochs` and return the last epoch's metrics.

    The loader's batch sampler is a `TrainingBatches`. `training_loss(network, clips)` maps a micro-batch, on the model's
    device, to its named losses, each a mean over its clips; "loss" is minimised and all are logged. `network` is the
    model's, compiled and distributed as asked for. `schedule(epoch)` is the factor of each learning rate. `evaluate()` returns an
    epoch's metrics, the same on all ranks, of which `selection` decides about best.pt. `average` follows the network's weights
    step by step; it is what the checkpoints hold, and what `evaluate` should measure. `patience` ends the training after so many
    epochs without a better score; None: never.

    `forward` wraps the network where `training_loss` is to call something else than its `forward`.

    `start_epoch(epoch)` is called before each epoch is trained, and before what is left of one.

    `deterministic` is that of `training_algorithms`: on GPUs, the same bits each time.

    Modules whose parameters are all frozen (requires_grad False) stay in evaluation mode.

    `precision` is that of the network's forward pass, one of `PRECISIONS`; weights are float32. A step whose loss or gradients are
    not finite changes nothing and is counted as `skipped_steps`; `MAX_SKIPPED_STEPS` in a row are a UserError. last.pt is
    written after each epoch, every `save_minutes` within one, and when Ctrl-C or SIGTERM ends the training, behind the step under
    way; `run.resumed` is where an interrupted run resumes.

    Batch norms see one micro-batch at a time; their running statistics are averaged over the ranks after an epoch.
    """
    batches: TrainingBatches = loader.batch_sampler
    run.require_same("training clips", batches.fingerprint, "--dataset_dir")
    _check_ranks(run, batches)
    run.open()
    for network in filter(None, (model.network, average)):
        network.to(memory_format=torch.channels_last)  # on CPUs a third faster, on GPUs what half precision wants
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    take_step = _Stepper(model, training_loss, optimizer, average, precision, compile_network, forward)
    progress, metrics = Progress(), {}
    if run.resumed:
        progress, metrics = _resume(run.resumed, take_step, batches)
        run.resumed = None  # the states of large networks and optimizers need not be held twice
        if progress.epoch >= n_epochs:
            logger.info("the run is complete: %d of %d epochs; a larger --n_epochs continues it", progress.epoch, n_epochs)
        elif _is_out_of_patience(progress, patience):
            logger.info("the run is complete, as it ended early; a larger --patience continues it")
        else:
            logger.info("resuming in epoch %d, step %d", progress.epoch, progress.step)

    def save() -> None:
        complete_epoch = progress.epoch - 1 if progress.epoch else None
        training = {"progress": vars(progress), "micro_batches": batches.micro_batches}
        run.save(take_step.result, complete_epoch, metrics, training | take_step.state())

    def train_steps(epoch: int) -> None:
        """Train the steps of an epoch that are left. An interruption saves the run behind the step that it comes in."""
        _set_training(model)
        batches.start(epoch, progress.step)
        micro_batches = copied_ahead(loader, lambda clips: to_device(clips, model.device), model.device)
        saved_at = started = perf_counter()
        started -= progress.seconds
        bar = clip_bar(f"epoch {epoch}", batches.steps * batches.batch_size, progress.step * batches.batch_size)
        with training_algorithms(model.device, deterministic), interrupts.deferred() as interruption, bar:
            for step in range(progress.step, batches.steps):
                losses, finite, ends = take_step(micro_batches, batches, step, interruption)
                if finite:
                    progress.skipped_in_a_row = 0
                    progress.sums = {name: progress.sums.get(name, 0.0) + value for name, value in losses.items()}
                else:
                    progress.sums = dict.fromkeys(losses, 0.0) | progress.sums
                    _count_skipped(progress, losses["loss"])
                progress.step, progress.seconds = step + 1, perf_counter() - started
                bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
                bar.update(batches.batch_size)
                is_due = ends or perf_counter() - saved_at >= 60 * save_minutes
                if is_due and progress.step < batches.steps:
                    save()
                    saved_at = perf_counter()
                    logger.info("epoch %d, step %d of %d: loss %.4f", epoch, progress.step, batches.steps, losses["loss"])
                if ends:
                    raise interruption.error()

    while progress.epoch < n_epochs and not _is_out_of_patience(progress, patience):
        epoch = progress.epoch
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(epoch)
        if start_epoch is not None:
            start_epoch(epoch)
        try:
            train_steps(epoch)
            take_step.average_statistics()
            scores = evaluate()
        except KeyboardInterrupt:
            if progress.step == batches.steps:  # behind the last one: within a step there is no state to save
                save()
            raise
        good_steps = (batches.steps - progress.skipped) or math.nan
        metrics = {"train_loss" if name == "loss" else name: total / good_steps for name, total in progress.sums.items()}
        metrics |= {"learning_rate": optimizer.param_groups[0]["lr"], "skipped_steps": progress.skipped} | scores
        metrics["clips_per_second"] = batches.steps * batches.batch_size / progress.seconds
        logger.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        with interrupts.deferred():  # until the epoch is in all files
            run.log(epoch, metrics)
            is_best = run.save_if_best(take_step.result, epoch, metrics, selection)
            is_better = distributed.gather(is_best)[0]  # as the main rank says
            since_best = 0 if is_better else progress.epochs_since_best + 1
            progress = Progress(epoch + 1, skipped_in_a_row=progress.skipped_in_a_row, epochs_since_best=since_best)
            save()
        if _is_out_of_patience(progress, patience) and progress.epoch < n_epochs:
            logger.info("no better %s in %d epochs: the training ends", selection, since_best)
    return metrics


def _is_out_of_patience(progress: Progress, patience: int | None) -> bool:
    return patience is not None and progress.epochs_since_best >= patience


def _set_training(model: nn.Module) -> None:
    """Put a model into training mode but for what is frozen, whose batch norms keep their statistics."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _check_ranks(run: Run, batches: TrainingBatches) -> None:
    """Raise UserError where the ranks see different files, before one of them waits for what others never do."""
    progress = run.resumed[1]["progress"] if run.resumed else {}
    clips, states = zip(*distributed.gather((batches.fingerprint, str(progress))), strict=True)
    if len(set(clips)) > 1:
        raise UserError("the ranks see different training clips; --dataset_dir must have the same files on all machines")
    if len(set(states)) > 1:
        raise UserError("the ranks see different states of the run; --resume needs a folder that all machines share")


def _resume(
    resumed: tuple[Checkpoint, dict[str, Any]], take_step: _Stepper, batches: TrainingBatches
) -> tuple[Progress, dict[str, float]]:
    """Restore weights, optimizer and scale of an interrupted run; return its progress and its last epoch's metrics."""
    checkpoint, state = resumed
    try:
        progress = Progress(**state["progress"])
        progress.check(batches.steps)
        take_step.restore(checkpoint.state, state)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:  # RuntimeError: torch's, of several lines
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint.name} is not of this training ({reason}); start a new run") from error
    if batches.micro_batches != state["micro_batches"]:
        logger.warning(
            "batches were cut into %d micro-batches and are now cut into %d: results differ slightly",
            state["micro_batches"], batches.micro_batches,
        )  # fmt: skip
    return progress, checkpoint.metrics


def _count_skipped(progress: Progress, loss: float) -> None:
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    what = "the gradients are not finite" if math.isfinite(loss) else f"the loss is {loss}"
    logger.warning("epoch %d, step %d: %s; this step is skipped", progress.epoch, progress.step, what)
    if progress.skipped_in_a_row >= MAX_SKIPPED_STEPS:
        raise UserError(
            f"loss or gradients were not finite in {MAX_SKIPPED_STEPS} steps in a row, up to step {progress.step} of epoch "
            f"{progress.epoch}; resume with --precision fp32, or start a new run with a smaller --max_lr"
        )
