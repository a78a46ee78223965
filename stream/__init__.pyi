from stream.api.check import Checked, check
from stream.api.comparison import Comparison, backtest
from stream.api.log import Log, LogWarning, read
from stream.api.model import Model, load_model, train
from stream.api.report import Report
from stream.api.run import Metrics, Run, load_run, replay
from stream.api.tuning import Tuned, tune
from stream.errors import HearbackError

__all__ = [
    "Checked",
    "Comparison",
    "HearbackError",
    "Log",
    "LogWarning",
    "Metrics",
    "Model",
    "Report",
    "Run",
    "Tuned",
    "backtest",
    "check",
    "load_model",
    "load_run",
    "read",
    "replay",
    "train",
    "tune",
]

DISTRIBUTION: str
VERSION: str
