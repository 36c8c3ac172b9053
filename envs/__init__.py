"""The PROBLEM: networks, data, the accuracy of a mapping, and its choice as an environment."""

from .accuracy import Recipe, Retrained, fast_retrain, full_retrain, retrain, train_dense
from .choices import Choices
from .datasets import DATASETS, Dataset, DatasetEntry, Split, load_dataset
from .evaluation import Evaluation
from .mapping_env import MappingEnv
from .networks import NETWORKS, NetworkEntry, build_network, default_input_shape
from .observation import paper_state
from .problem import AccuracySource, LatencySource, Problem
from .rewards import REWARDS, Reward
from .size import Size, size_under
from .spec import DEFAULT_SPEC, ProblemSpec, spec_error
from .trained import Progress, TrainedAccuracy
from .training import Diverged, Phase, arithmetic, evaluate_accuracy, train
from .vec_env import Evaluate, MappingVecEnv
from .weights import load_weights, save_weights

__all__ = [
    "DATASETS",
    "DEFAULT_SPEC",
    "NETWORKS",
    "REWARDS",
    "AccuracySource",
    "Choices",
    "Dataset",
    "DatasetEntry",
    "Diverged",
    "Evaluate",
    "Evaluation",
    "LatencySource",
    "MappingEnv",
    "MappingVecEnv",
    "NetworkEntry",
    "Phase",
    "Problem",
    "ProblemSpec",
    "Progress",
    "Recipe",
    "Retrained",
    "Reward",
    "Size",
    "Split",
    "TrainedAccuracy",
    "arithmetic",
    "build_network",
    "default_input_shape",
    "evaluate_accuracy",
    "fast_retrain",
    "full_retrain",
    "load_dataset",
    "load_weights",
    "paper_state",
    "retrain",
    "save_weights",
    "size_under",
    "spec_error",
    "train",
    "train_dense",
]
