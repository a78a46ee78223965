from stream.api.log import Log, LogWarning, read
from stream.api.model import Model, load_model, train
from stream.api.run import Metrics, Report, Run, load_run, replay
from stream.errors import HearbackError

__all__ = [
    "HearbackError",
    "Log",
    "LogWarning",
    "Metrics",
    "Model",
    "Report",
    "Run",
    "load_model",
    "load_run",
    "read",
    "replay",
    "train",
]

DISTRIBUTION: str
VERSION: str
