"""Conditioning: how decided weights reach a policy. One kind per module; the policy card holds one of them.

Each kind says which `ContextFormat` its policy reads (`context_format`), None where it reads no context.
"""

from typing import Annotated

from pydantic import Field

from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.conditioning.instruction import InstructionConditioning
from preforch_models.conditioning.members import MembersConditioning
from preforch_models.conditioning.mixture import MixtureConditioning
from preforch_models.conditioning.scores import ScoresConditioning

Conditioning = Annotated[
    ContextConditioning
    | ScoresConditioning
    | InstructionConditioning
    | MembersConditioning
    | MixtureConditioning
    | FixedConditioning,
    Field(discriminator="kind"),
]
"""The table of kinds. The gateway's half of each that can be served is in `preforch_service.conditioning`."""
