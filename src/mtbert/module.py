"""The LightningModule: encoder, heads and losses. It knows nothing of files, loggers or schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtbert.config import Config, Recipe
from mtbert.data.masking import TEXT, MaskedUpdate
from mtbert.data.updates import TaskRows, Update
from mtbert.distributed import average, gathered
from mtbert.errors import InputError
from mtbert.evaluation import Evaluation
from mtbert.gradients import UncertaintyWeights, find_surgery
from mtbert.graphs import StepGraphs
from mtbert.losses import Loss
from mtbert.model.encoder import BertEncoder
from mtbert.model.heads import share_first_linears
from mtbert.model.lora import add_lora, merge_lora, merged_state_dict
from mtbert.model.masked_lm import MaskedLmHead
from mtbert.optim import build_lr_schedule, build_optimizer
from mtbert.plan import Phase
from mtbert.regularizers import Rows, find_regularizers
from mtbert.seeding import seed_device, torch_seeded
from mtbert.tasks import Task, find_loss, find_task

if TYPE_CHECKING:
    from mtbert.distillation import Teachers


class MultitaskModule(LightningModule):
    """One encoder, a head for each task, and the loss that joins them.

    A step makes one encoder pass over all sequences of its update. ``begin`` sets what the current phase trains;
    with ``cache_embeddings`` a fixed encoder's outputs are looked up instead of computed.
    """

    def __init__(
        self,
        encoder: BertEncoder,
        heads: nn.ModuleDict,
        tasks: Mapping[str, Task],
        losses: Mapping[str, Loss],
        config: Config,
    ) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads
        self.tasks, self.losses, self.config = dict(tasks), dict(losses), config
        self.regularizers = find_regularizers(config.methods)
        self.surgery = None if config.methods.gradients == "sum" else find_surgery(config.methods.gradients)
        self.teachers: Teachers | None = None
        self.weighting: UncertaintyWeights | None = None
        self.average: AveragedModel | None = None
        self.masked_lm: MaskedLmHead | None = None
        self.graphs: StepGraphs | None = None
        self.parts: list[Tensor] = []  # the step's loss, task by task, between the two passes
        self.phase: Phase | None = None
        self.num_steps = 0
        self.embeddings: Tensor | None = None
        self.evaluation = Evaluation()
        self.metrics: dict[str, float] = {}

    @property
    def recipe(self) -> Recipe:
        return self.config.recipe

    def begin(self, phase: Phase, num_steps: int) -> None:
        """Fix and free parameters as the phase of ``num_steps`` says; forget embeddings of an earlier one.

        Until ``end`` the module also has what only training needs: adapters, averaged weights, loss weights,
        the output layer of masked-LM training.
        """
        self.end()
        self.phase, self.num_steps, self.embeddings = phase, num_steps, None
        self.evaluation, self.metrics = Evaluation(), {}
        self.encoder.requires_grad_("encoder" not in phase.freeze)
        self.heads.requires_grad_("heads" not in phase.freeze)
        methods = self.config.methods
        with torch_seeded(self.config.seed, phase.name, "begin"):
            if methods.lora.rank > 0 and "encoder" not in phase.freeze:
                add_lora(self.encoder, methods.lora)
            if not phase.trains_tasks:
                self.masked_lm = MaskedLmHead(self.encoder.config)
        if methods.weighting == "uncertainty":
            self.weighting = UncertaintyWeights(self.tasks)
        if methods.ema > 0:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(methods.ema))
            self.average.requires_grad_(False)
        self.train(self.training)
        if self._captured():
            self.graphs = StepGraphs(self, self._step)

    def _captured(self) -> bool:
        """Whether steps on a GPU are replayed from graphs: not where they depend on more than update and weights."""
        assert self.phase is not None
        config = self.config
        return (
            config.trainer.cuda_graphs
            and config.trainer.devices == 1
            and self.phase.trains_tasks
            and self.surgery is None  # a backward pass for each task
            and self.teachers is None  # whose part depends on the progress
            and config.methods.smart.weight == 0  # goes back to the same dropout between its passes
        )

    def end(self) -> None:
        """Be encoder and heads alone again, as they were trained last."""
        merge_lora(self.encoder)
        self.weighting = self.average = self.masked_lm = self.graphs = None

    @property
    def model(self) -> nn.ModuleDict:
        """Encoder and heads, as they are trained."""
        return nn.ModuleDict({"encoder": self.encoder, "heads": self.heads})

    @property
    def evaluated(self) -> nn.ModuleDict:
        """Encoder and heads, as they are evaluated: averaged where the config says so."""
        return self.model if self.average is None else cast(nn.ModuleDict, self.average.module)

    def exported(self) -> dict[str, Tensor]:
        """The evaluated weights of encoder and heads under their plain names, adapters merged."""
        return merged_state_dict(self.evaluated)

    def train(self, mode: bool = True) -> MultitaskModule:
        """As usual, but a fixed encoder without dropout stays in evaluation mode."""
        super().train(mode)
        if self.phase is not None and not self.phase.encoder_dropout:
            self.encoder.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.phase is not None
        config = self.config.optimizer
        optimizer = build_optimizer(self, self.phase.lr, config, self.recipe.uncorrected_epsilon)
        if (schedule := build_lr_schedule(optimizer, config, self.num_steps)) is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if (limit := self.config.optimizer.clip_norm) is not None:
            nn.utils.clip_grad_norm_(self.parameters(), limit)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def embed_sequences(
        self, encoder: BertEncoder, update: Update, offset: Float[Tensor, "slots hidden"] | None = None
    ) -> Float[Tensor, "sequences hidden"]:
        """Sentence embeddings of an update, in its order: one encoder pass, or a look-up."""
        if self.embeddings is not None:
            return self.embeddings[update.sequence_ids]
        packed = update.packed
        assert packed is not None
        if offset is None:
            return encoder(packed)
        return encoder.pooled(encoder.embed(packed) + offset, packed)

    def forward(
        self, update: Update, offset: Float[Tensor, "slots hidden"] | None = None
    ) -> dict[str, Float[Tensor, "rows ..."]]:
        """Logits of every task in the update: ``rows x classes``, or ``rows`` where a task has one output.

        ``offset`` is added to the embeddings, slot by slot.
        """
        model: Any = self.model if self.training else self.evaluated
        pooled = self.embed_sequences(model["encoder"], update, offset)
        split = pooled.split([task.num_sequences for task in update.tasks])
        logits = {t.task: model["heads"][t.task](part).squeeze(-1) for t, part in zip(update.tasks, split, strict=True)}
        return {t.task: gathered(logits[t.task], t.share, len(t.rows)) for t in update.tasks}

    def training_step(self, update: Update, batch_idx: int = 0) -> dict[str, object]:
        """The step's loss; beside it each task's logits and row losses, for callbacks."""
        seed_device(update.seed, self.device)
        if isinstance(update, MaskedUpdate):
            return self._masked_step(update)
        return self._step(update) if self.graphs is None or self.device.type != "cuda" else self.graphs(update)

    def _step(self, update: Update) -> dict[str, Any]:
        logits = self(update)
        values = self.row_losses(update, logits)
        losses = self._losses(update, logits, values)
        self.parts = list((losses if self.weighting is None else self.weighting(losses)).values())
        return {
            "loss": torch.stack(self.parts).sum(),
            "losses": {name: loss.detach() for name, loss in losses.items()},
            "values": {name: value.detach() for name, value in values.items()},
            "logits": {name: output.detach() for name, output in logits.items()},
        }

    def _masked_step(self, update: MaskedUpdate) -> dict[str, object]:
        """Mean cross entropy of the masked tokens; their losses stand for those of rows."""
        assert self.masked_lm is not None
        values = gathered(self.masked_lm.losses(self.encoder, update), update.share, update.num_targets)
        self.parts = [loss := values.mean()]
        return {"loss": loss, "losses": {TEXT: loss.detach()}, "values": {TEXT: values.detach()}, "logits": {}}

    def row_losses(self, update: Update, logits: Rows) -> dict[str, Float[Tensor, " rows"]]:
        """The loss of every row of the update, unweighted, without regularisers."""
        return {task.task: self._row_losses(task, logits[task.task]) for task in update.tasks}

    def taught(self, update: Update, logits: Rows, values: Rows) -> Rows:
        """The rows' losses ``values``, mixed with their distance to the teachers where there are any."""
        if self.teachers is None:
            return values
        progress = self.global_step / self.num_steps
        return {
            part.task: self.teachers.mixed(self.tasks[part.task], part, logits[part.task], values[part.task], progress)
            for part in update.tasks
        }

    def _row_losses(self, task: TaskRows, logits: Tensor) -> Float[Tensor, " rows"]:
        definition = self.tasks[task.task]
        labels = task.labels.trunc() if self.recipe.integer_labels and definition.graded else task.labels
        values = self.losses[task.task](logits, labels, definition.label_high)
        if values.shape != labels.shape:
            found = f"a loss of shape {list(values.shape)} for {len(labels)} rows"
            raise InputError(f"config: tasks.{task.task}.loss gives {found}; expected one value a row")
        return values

    def _losses(self, update: Update, logits: Rows, values: Rows) -> dict[str, Float[Tensor, ""]]:
        """Each task's loss: its rows' losses and penalties, with the coefficients that the schedule gave them."""
        rows = self.taught(update, logits, values)
        for regularizer in self.regularizers:
            penalties = regularizer(self, update, logits)
            rows = {name: value + penalties[name] for name, value in rows.items()}
        return {task.task: (task.coefficients * rows[task.task]).sum() for task in update.tasks}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The seam where losses become gradients: those of the sum, or, where several tasks meet, surgery on each's."""
        shared = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        if self.surgery is None or len(self.parts) < 2 or not shared:
            super().backward(loss, *args, **kwargs)
        else:
            known = set(shared)
            self.surgery(self.parts, shared, [p for p in self.parameters() if p.requires_grad and p not in known])
        if self.surgery is not None:  # else DDP does it
            average(p.grad for p in self.parameters() if p.grad is not None)
        self.parts = []

    def on_validation_epoch_start(self) -> None:
        self.evaluation = Evaluation()

    def validation_step(self, update: Update, batch_idx: int = 0) -> None:
        for task, logits in zip(update.tasks, self(update).values(), strict=True):
            self.evaluation.add(task, logits)

    def on_validation_epoch_end(self) -> None:
        self.metrics = self.evaluation.metrics(self.tasks, self.recipe)
        self.log_dict(self.metrics, logger=False)

    @torch.no_grad()
    def cache_embeddings(self, updates: Iterable[Update], num_sequences: int) -> None:
        """Compute and keep the encoder's outputs for ``num_sequences`` sequences, found by their run-wide numbers."""
        self.encoder.eval()
        cache = torch.zeros(num_sequences, self.encoder.config.hidden_size, device=self.device)
        for update in updates:
            cache[update.sequence_ids.to(self.device)] = self.encoder(update.to(self.device).packed).float()
        self.embeddings = cache


def build_heads(config: Config, tasks: Mapping[str, Task], hidden_size: int) -> nn.ModuleDict:
    """Freshly drawn heads; which numbers they start from depends on the seed alone."""
    with torch_seeded(config.seed, "heads"):
        heads = nn.ModuleDict(
            {name: task.head(hidden_size, task.num_outputs, config.heads.dropout) for name, task in tasks.items()}
        )
    if config.heads.share_layers:
        share_first_linears(heads)
    return heads


def build_module(config: Config, encoder: BertEncoder) -> MultitaskModule:
    """Encoder and heads as the config says.

    Raises:
        InputError: a task or loss that does not exist.
    """
    tasks = {name: find_task(name, options) for name, options in config.tasks.items()}
    losses = {name: find_loss(name, task, config.tasks[name]) for name, task in tasks.items()}
    return MultitaskModule(encoder, build_heads(config, tasks, encoder.config.hidden_size), tasks, losses, config)
