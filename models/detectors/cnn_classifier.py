"""Supervised classifier of series, images and videos: the score is the logit of "anomaly"."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.batch import Layout
from models.detectors.classifier import Classifier, ClassifierConfig
from models.detectors.detector import expect
from models.layers.convolution import Towers, require_spatial


@dataclass(frozen=True)
class ConvolutionalClassifierConfig(ClassifierConfig):
    """Options of `cnn_classifier`: those of `classifier`, whose `widths` are the layers of the
    columns beside the signals, and the size of the convolutions."""

    channels: int = 8  # of the first convolution; they double as the sides are halved

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.channels >= 1, self, "channels", "1 or more")


class ConvolutionalClassifier(Classifier):
    """Blocks of convolutions, then one layer, as image classifiers have been since LeNet (LeCun et
    al., Proc. IEEE 1998), in one, two or three dimensions: a side of 32 is halved three times, a
    larger one more often, so that the last map has at most 4 places a side whatever came in.

    Loss, imbalance and explanation are the classifier's.
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
