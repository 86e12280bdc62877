"""MLflow: runs, registered versions and their aliases."""

import logging

logging.getLogger("mlflow").setLevel(logging.WARNING)
