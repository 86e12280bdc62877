"""Wrote the model.txt files beside it, with each lightgbm in turn (numpy 1.23.5 for the old ones): python train.py FOLDER."""

import sys
from pathlib import Path

import lightgbm as lgb
import numpy as np

out = Path(sys.argv[1])
rng = np.random.RandomState(7)
x = rng.normal(size=(600, 4)).astype(np.float32)
x[rng.uniform(size=x.shape) < 0.15] = np.nan
x[rng.uniform(size=x.shape) < 0.15] = 0
x[:, 3] = rng.randint(0, 40, 600)
y = (np.nan_to_num(x[:, 0]) + (x[:, 3] % 3 == 0) - np.nan_to_num(x[:, 1]) > 0.3).astype(float)
kinds = {
    "binary": {"objective": "binary", "sigmoid": 0.7},
    "zero_as_missing": {"objective": "regression", "zero_as_missing": True},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "forest": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
}
for name, params in kinds.items():
    params = dict(params, verbose=-1, num_leaves=7, min_data_in_leaf=5, min_data_per_group=5, num_threads=1)
    target = (x[:, 3] % 3) if name == "multiclass" else y
    data = lgb.Dataset(x, target, categorical_feature=[3], free_raw_data=False)
    booster = lgb.train(params, data, 6)
    booster.save_model(str(out / (f"{lgb.__version__}_{name}.txt")))
