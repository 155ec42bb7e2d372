"""The detectors that stand alone: a new one is a file of its own, an import and a line here."""

from models.detectors.anomaly_likelihood import AnomalyLikelihood
from models.detectors.autoencoder import Autoencoder
from models.detectors.classifier import Classifier
from models.detectors.cnn_classifier import ConvolutionalClassifier
from models.detectors.convolutional_autoencoder import ConvolutionalAutoencoder
from models.detectors.deep_sad import DeepSAD
from models.detectors.deep_svdd import DeepSVDD
from models.detectors.devnet import DevNet
from models.detectors.diffusion_time import DiffusionTime
from models.detectors.ecod import ECOD
from models.detectors.forecaster import Forecaster
from models.detectors.gan import GAN
from models.detectors.gaussian import Gaussian
from models.detectors.hog_knn import HOGKNN
from models.detectors.isolation_forest import IsolationForest
from models.detectors.knn import KNN
from models.detectors.matrix_profile import MatrixProfile
from models.detectors.options import Catalog
from models.detectors.pca import PCA
from models.detectors.recurrent_autoencoder import RecurrentAutoencoder
from models.detectors.recurrent_classifier import RecurrentClassifier
from models.detectors.spectral_residual import SpectralResidual
from models.detectors.variational_autoencoder import VariationalAutoencoder

SINGLE = Catalog(
    {
        "anomaly_likelihood": AnomalyLikelihood,
        "autoencoder": Autoencoder,
        "classifier": Classifier,
        "cnn_classifier": ConvolutionalClassifier,
        "convolutional_autoencoder": ConvolutionalAutoencoder,
        "deep_sad": DeepSAD,
        "deep_svdd": DeepSVDD,
        "devnet": DevNet,
        "diffusion_time": DiffusionTime,
        "ecod": ECOD,
        "forecaster": Forecaster,
        "gan": GAN,
        "gaussian": Gaussian,
        "hog_knn": HOGKNN,
        "isolation_forest": IsolationForest,
        "knn": KNN,
        "matrix_profile": MatrixProfile,
        "pca": PCA,
        "recurrent_autoencoder": RecurrentAutoencoder,
        "recurrent_classifier": RecurrentClassifier,
        "spectral_residual": SpectralResidual,
        "variational_autoencoder": VariationalAutoencoder,
    }
)
