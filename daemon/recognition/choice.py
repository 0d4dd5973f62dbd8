"""Which of several models analyses a frame: the first of whose conditions it meets."""

from typing import NamedTuple

from daemon.errors import ModelError
from daemon.frames import FocalSeries, Frame
from daemon.recognition.conditions import Conditions, described
from daemon.recognition.recogniser import Recogniser


class Offer(NamedTuple):
    """A model, and what it is for."""

    recogniser: Recogniser
    conditions: Conditions = Conditions()


class ModelChoice:
    """The models of one source.

    Args:
        offers: In the order they are tried.
    """

    def __init__(self, *offers: Offer) -> None:
        self._offers = offers

    @property
    def recognisers(self) -> list[Recogniser]:
        """All of them."""
        return [offer.recogniser for offer in self._offers]

    @property
    def takes_series(self) -> bool:
        """Whether they take focal series, all of them, rather than single frames."""
        return self._offers[0].recogniser.manifest.input_frames > 1

    def recogniser_for(self, subject: Frame | FocalSeries) -> Recogniser:
        """Return the model that analyses a frame or series; always the same.

        Raises:
            ModelError: It is like what none of them is for.
        """
        for recogniser, conditions in self._offers:
            if conditions.are_met_by(subject):
                return recogniser
        offered = "; ".join(
            f"{recogniser.manifest.name} is for {conditions}" for recogniser, conditions in self._offers
        )
        raise ModelError(
            f"{subject.name} has {described(subject)}, and no model of its source is for that: {offered}. Change these "
            "conditions in config.toml, or name a `model` there for everything else."
        )
