"""`config.toml` and `HRTEMD_...` environment variables as checked settings."""

from daemon.config.alerts import Alerts
from daemon.config.configuration import Configuration, Limits, RecognitionSettings
from daemon.config.loading import ENVIRONMENT_PREFIX, load_configuration
from daemon.config.publishing import FilesPublishing, LedgerSettings, Publishing, Retention, ZeroMQPublishing
from daemon.config.sources import DirectorySource, Source, SourceSettings, ZeroMQSource

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Alerts",
    "Configuration",
    "DirectorySource",
    "FilesPublishing",
    "LedgerSettings",
    "Limits",
    "Publishing",
    "RecognitionSettings",
    "Retention",
    "Source",
    "SourceSettings",
    "ZeroMQPublishing",
    "ZeroMQSource",
    "load_configuration",
]
