"""Results that their topic would refuse become rejections before they are sent."""

from __future__ import annotations

import numpy as np

from saker.engine.config import TopicLimits
from saker.engine.kafka.batch import ConsumedBatch
from saker.engine.kafka.topic_limits import may_not_take, why_not
from saker.engine.pipeline import Scored
from saker.engine.records.rejection import Rejection


def without_undeliverable(batch: ConsumedBatch, scored: Scored, limits: TopicLimits) -> Scored:
    """limits: of the topic of results."""
    suspects = set(may_not_take(limits, batch))
    if not suspects:
        return scored
    rejections, kept = list(scored.rejections), np.ones(len(scored.indices), np.bool_)
    for place, index in enumerate(scored.indices.tolist()):
        if index in suspects and (why := why_not(limits, batch.origin(index), len(scored.results[place]))) is not None:
            rejections.append(Rejection(index, "undeliverable", why))
            kept[place] = False
    if kept.all():
        return scored
    rejections.sort(key=lambda rejection: rejection.index)
    results = [scored.results[place] for place in np.flatnonzero(kept).tolist()]
    return scored._replace(results=results, indices=scored.indices[kept], rejections=rejections, scores=scored.scores[kept])
