"""Limits of a feature store: how late events may be, and how much is kept of each key."""

from pydantic import BaseModel, ConfigDict, Field

from usr_tf.schema import Delay, Duration


class Limits(BaseModel):
    """Limits of a feature store. In milliseconds here, as `1d` in the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lateness: Delay = 86_400_000
    """How much earlier than the user's newest event an event may be. What is earlier still is refused, as it can no
    longer be told from a duplicate."""
    idle: Duration | None = None
    """Users without an event for so long are dropped; never when absent."""
    events: int = Field(10_000, ge=1)
    """Impressions, and actions, of a user that are kept within the lateness; more of them shorten it."""
    entries: int = Field(4_096, ge=2)
    """Times of a counter key that are told apart; more of them are merged, the oldest first."""
    versions: int = Field(32, ge=1)
    """Rows of an item or user that are kept, the newest."""
