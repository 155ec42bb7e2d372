"""Convolutional autoencoder of series, images, sounds and videos."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.detectors.autoencoder import Autoencoder, AutoencoderConfig
from models.detectors.detector import expect
from models.layers.convolution import Painters, Towers, require_spatial
from models.layout import Layout


@dataclass(frozen=True)
class ConvolutionalAutoencoderConfig(AutoencoderConfig):
    """Options of `convolutional_autoencoder`: those of `autoencoder` and the convolutions' size.

    `widths` are the layers for the columns that are not convolved.
    """

    channels: int = 8  # of the first convolution; they double each time the sides are halved

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.channels >= 1, self, "channels", "1 or more")


class ConvolutionalAutoencoder(Autoencoder):
    """Rebuilds signals of any size through convolutions, in one, two or three dimensions.

    Each signal has its own convolutions (`models.layers.convolution`); numbers, categories,
    vectors and tokens join them at the bottleneck. Loss, score and shares are those of
    `autoencoder`.
    """

    Config = ConvolutionalAutoencoderConfig

    def __init__(self, layout: Layout, config: ConvolutionalAutoencoderConfig) -> None:
        super().__init__(layout, config)
        outputs = self.inputs.numbers + sum(self.sizes)
        sizes = (config.channels, config.widths)
        self.encoder = nn.ModuleList([Towers(layout, self.inputs.width, self.latent, *sizes)])
        self.decoder = nn.ModuleList([Painters(layout, self.latent, outputs, *sizes)])

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_spatial(layout)

    def _decode(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        out: Tensor = self.decoder[0](self.encoder[0](columns, dropout))
        return out.float()
