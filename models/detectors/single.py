"""The detectors that stand alone. Importing one here adds it to the catalogue.

Its name is the name of its file. `python -m models new NAME` writes such a file and its import.
"""

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

SINGLE = Catalog.from_imports(globals())
