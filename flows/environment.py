"""The environment in which the libraries below us call nobody, and leave it to us to say what matters."""

import os

_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # what matters of it is said by us
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP warns where a batch happens to need all weights
    "OMP_WAIT_POLICY": "PASSIVE",  # where other work shares the cores, spinning threads made training 4 times slower
    "WDS_SECURE": "1",
}


def quiet_environment() -> None:
    """Set what the user has not set. Most of it is read when Prefect and Ray are imported: call it before."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
