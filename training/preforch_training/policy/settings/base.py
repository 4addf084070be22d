"""What every kind of policy says of itself; a kind says otherwise where it differs."""

from collections.abc import Mapping

from preforch_models.objectives import Record

from preforch_training.policy.settings.fine_tuning import FineTuning


class PolicySettings(Record):
    """The settings of one policy."""

    @property
    def reads(self) -> str:
        """What its prompts are written for, the kind of its conditioning: a policy can start from one that
        reads the same."""
        return "fixed"

    @property
    def reads_weights(self) -> bool:
        """Whether what it answers depends on the weights that it is asked with."""
        return self.reads != "fixed"

    @property
    def rounds(self) -> int:
        """Number of its rounds, the offline one included."""
        return 1

    @property
    def snapshots_at(self) -> Mapping[int, int]:
        """By step after which it is kept, the samples of its own up to there."""
        return {}

    @property
    def runs_apart(self) -> int:
        """Trainings whose results lie beside its rounds, which are made by them."""
        return 0

    @property
    def trainings(self) -> dict[str, FineTuning]:
        """Its trainings, by their keys."""
        return {}

    @property
    def repeats(self) -> dict[str, int]:
        """How often each training is carried out."""
        return dict.fromkeys(self.trainings, 1)

    @property
    def checkpoints(self) -> int:
        """How many it leaves: of every training or round, and the mean of trainings that are no rounds."""
        trained = sum(self.repeats.values())
        return max(trained + (trained > self.rounds), self.rounds)

    @property
    def can_be_served(self) -> bool:
        """Whether an engine can; the report draws from all policies."""
        return True

    @property
    def sides(self) -> int:
        """Texts of a row of its trainings."""
        return 1

    @property
    def has_reference(self) -> bool:
        """Whether a model that stays as it is reads every row as well."""
        return False

    @property
    def can_be_sharded(self) -> bool:
        """Whether its trainer works where ranks hold parts of a model."""
        return True

    @property
    def names_objectives(self) -> tuple[str, ...]:
        """Objectives that its settings name, which must be the run's."""
        return ()

    @property
    def by_overall(self) -> bool:
        """Whether it is rewarded by the one overall reward, not by those of the objectives."""
        return False

    @property
    def merges(self) -> Mapping[str, str]:
        """By objective, the policies that it is merged of."""
        return {}

    @property
    def mixes(self) -> Mapping[str, str]:
        """By objective, the policies that it draws every token from."""
        return {}

    @property
    def is_one_adapter(self) -> bool:
        """Whether it can be merged with others: one LoRA adapter on its start."""
        return False
