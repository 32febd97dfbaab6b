"""Lightning and fastai with their own stock loops. Installed only for the bench: `make bench PEERS=1`."""

import logging
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from benchmarks import work
from benchmarks.work import LEARNING_RATE, Job, Round

FOLDER = Path(__file__).parents[2] / "build" / "peers"


def epoch_round(job: Job, name: str, train_loader: DataLoader, test_loader: DataLoader | None, again: bool) -> Round:
    """One epoch of the library's own loop, validation included where there is a test loader.

    `again`: every round starts from the same new network; otherwise the training goes on from round to round.
    """
    sys.path.append(str(FOLDER))  # at the end: what the lectures have installed comes first
    warnings.simplefilter("ignore")
    make = {"lightning": lightning_epoch, "fastai": fastai_epoch}[job.side]
    epochs = [make(job, work.network(name), train_loader, test_loader)]

    def one_round():
        if again:
            epochs[0] = make(job, work.network(name), train_loader, test_loader)
        torch.manual_seed(1)  # the same dropout on both sides
        return work.timed(lambda: (len(train_loader.dataset), epochs[0]()))

    return one_round


def lightning_epoch(job: Job, model, train_loader, test_loader):
    import lightning

    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.losses = model, []

        def training_step(self, batch, batch_index):
            images, labels = batch
            loss = F.cross_entropy(self.model(images), labels)
            self.losses.append(loss.detach())
            return loss

        def validation_step(self, batch, batch_index):
            images, labels = batch
            logits = self.model(images)
            self.log("test_loss", F.cross_entropy(logits, labels))
            self.log("test_accuracy", (logits.argmax(dim=1) == labels).float().mean())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)

    module = Classifier()

    def one_epoch() -> float:
        module.losses = []
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="gpu" if job.device == "cuda" else "cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, train_loader, test_loader)
        return torch.stack(module.losses).mean().item()

    return one_epoch


def fastai_epoch(job: Job, model, train_loader, test_loader):
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper

    class Losses(Callback):
        def before_fit(self):
            self.values = []

        def after_loss(self):
            if self.learn.training:
                self.values.append(self.learn.loss.detach())

    losses = Losses()
    loaders = DataLoaders(train_loader, test_loader or [], device=torch.device(job.device))
    learner = Learner(
        loaders,
        model.to(job.device),
        loss_func=F.cross_entropy,
        opt_func=lambda parameters, **settings: OptimWrapper(parameters, torch.optim.Adam, lr=LEARNING_RATE),
        metrics=accuracy if test_loader is not None else None,
        cbs=losses,
        train_bn=True,
    )

    def one_epoch() -> float:
        with (
            learner.removed_cbs([one for one in learner.cbs if isinstance(one, ProgressCallback)]),
            learner.no_logging(),
        ):
            learner.fit(1, lr=LEARNING_RATE)
        return torch.stack(losses.values).mean().item()

    return one_epoch
