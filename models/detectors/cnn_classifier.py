"""Supervised classifier of labelled series, images, sounds and videos, by convolutions."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.detectors.classifier import Classifier, ClassifierConfig
from models.detectors.detector import expect
from models.layers.convolution import Towers, require_spatial
from models.layout import Layout


@dataclass(frozen=True)
class ConvolutionalClassifierConfig(ClassifierConfig):
    """Options of `cnn_classifier`: those of `classifier` and the size of the convolutions.

    `widths` are the layers for the columns that are not convolved.
    """

    channels: int = 8  # of the first convolution; they double each time the sides are halved

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.channels >= 1, self, "channels", "1 or more")


class ConvolutionalClassifier(Classifier):
    """A convolutional network trained on labels, in one, two or three dimensions.

    Convolutions, then one dense layer (LeNet, LeCun et al., Proc. IEEE 1998). Sides are halved
    until the map has at most 4 places a side. Loss, imbalance and explanation are those of
    `classifier`.
    """

    Config = ConvolutionalClassifierConfig

    def __init__(self, layout: Layout, config: ConvolutionalClassifierConfig) -> None:
        super().__init__(layout, config)
        towers = Towers(layout, self.inputs.width, 1, config.channels, config.widths)
        self.layers = nn.ModuleList([towers])

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_spatial(layout)

    def _logit(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        logit: Tensor = self.layers[0](columns, dropout)
        return logit.float().squeeze(1)
