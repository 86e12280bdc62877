"""MLServer with its Kafka input: mlserver_kafka.py BOOTSTRAP_SERVERS INPUT OUTPUT GROUP MODEL.

Its Kafka server takes requests of the V2 protocol with the model's name in a header and text for a key, and nothing else; here
raw records are turned into such requests on their way in, and its answers into results. Adaptive batching is on. It joins no
group and commits nothing, so a second process would score everything again, and what comes while it is down is never scored.
"""

import asyncio
import sys
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.kafka import message
from mlserver.kafka import server as kafka_server
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from record import open_session, result


class Fraud(MLModel):
    async def load(self) -> bool:
        self._run, _ = open_session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        scores = self._run(x.astype(np.float32))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("score", scores.reshape(-1, 1))])


def main(bootstrap_servers: str, source: str, output: str, _group: str, model: str) -> None:
    row = itemgetter(*open_session(model)[1])

    def from_kafka_record(record: Any) -> message.KafkaMessage:
        fields = orjson.loads(record.value)
        data = [float("nan") if value is None else value for value in row(fields)]
        inputs = [{"name": "x", "shape": [1, len(data)], "datatype": "FP64", "data": data}]
        key = f"{record.key.hex()} {fields['TransactionID']}"
        return message.KafkaMessage(key=key, value={"inputs": inputs}, headers={"mlserver-model": "fraud"})

    def encoded_key(answer: message.KafkaMessage) -> bytes:
        return bytes.fromhex((answer.key or "").split()[0])

    def encoded_value(answer: message.KafkaMessage) -> bytes:
        record = {"TransactionID": int((answer.key or "").split()[1])}
        return result(record, answer.value["outputs"][0]["data"][0])

    message.KafkaMessage.from_kafka_record = staticmethod(from_kafka_record)
    message.KafkaMessage.encoded_key = property(encoded_key)
    message.KafkaMessage.encoded_value = property(encoded_value)
    kafka_server.logger.disabled = True
    settings = Settings(
        kafka_enabled=True,
        kafka_servers=bootstrap_servers,
        kafka_topic_input=source,
        kafka_topic_output=output,
        parallel_workers=0,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        debug=False,
    )
    fraud = ModelSettings(
        name="fraud", implementation=Fraud, parameters=ModelParameters(uri=model), max_batch_size=256, max_batch_time=0.002
    )
    asyncio.run(MLServer(settings).start([fraud]))


main(*sys.argv[1:])
