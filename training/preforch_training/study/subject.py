"""What a run itself chooses, which its study sets the alternatives against."""

from collections.abc import Mapping
from dataclasses import dataclass

from preforch_models.calibration import Method as CalibrationMethod

from preforch_training.data.config import Config as DataConfig
from preforch_training.embeddings.vectors import EncoderSettings
from preforch_training.orchestrator.config import Config as OrchestratorConfig
from preforch_training.presets import PRESETS
from preforch_training.reward.config import Reward
from preforch_training.study.choices import Choice
from preforch_training.study.config import Features


@dataclass(frozen=True)
class StudySubject:
    """Rewards by objective, calibration, orchestrator, and how other sources of data are read."""

    rewards: Mapping[str, Reward]
    calibration: CalibrationMethod
    orchestrator: OrchestratorConfig
    data: DataConfig

    @property
    def own_features(self) -> Features:
        """What the run's orchestrator reads of a prompt."""
        return Features(pooling=self.orchestrator.pooling, layers=self.orchestrator.layers)

    def encoder(self, features: Features) -> EncoderSettings:
        """The run's frozen encoder, read as `features` say."""
        own = self.orchestrator
        return EncoderSettings(own.encoder, features.pooling, own.max_tokens, features.layers)

    @property
    def own_choice(self) -> Choice:
        """The choice that the run makes."""
        return Choice(
            calibration=self.calibration,
            target=self.orchestrator.target,
            loss=self.orchestrator.loss,
            tau=self.orchestrator.tau,
            features=str(self.own_features),
            entropy_prior=self.orchestrator.entropy_prior,
        )

    @property
    def paper_choice(self) -> Choice:
        """The paper's calibration, target, loss and tau on the run's vectors."""
        preset = PRESETS["paper"]
        names = ("target", "loss", "tau")
        changes = {"calibration": preset["scores"]["calibration"], "entropy_prior": 0.0}
        return self.own_choice.model_copy(
            update=changes | {name: preset["orchestrator"][name] for name in names}
        )
