"""From a trained model to ONNX, exactly or not at all, with its proof, and to the registry.

Booster --readers--> Ensemble --onnx_writer--> ModelProto --proof--> ParityReport --registry--> MLflow
"""
