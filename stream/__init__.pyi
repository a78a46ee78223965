from stream.api.comparison import Comparison, backtest
from stream.api.log import Log, LogWarning, read
from stream.api.model import Model, load_model, train
from stream.api.report import Report
from stream.api.run import Metrics, Run, load_run, replay
from stream.errors import HearbackError

__all__ = [
    "Comparison",
    "HearbackError",
    "Log",
    "LogWarning",
    "Metrics",
    "Model",
    "Report",
    "Run",
    "backtest",
    "load_model",
    "load_run",
    "read",
    "replay",
    "train",
]

DISTRIBUTION: str
VERSION: str
