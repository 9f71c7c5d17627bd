"""PyTorch network -> ONNX and TFLite files, fp32 and int8, each verified against PyTorch, and their manifest."""
