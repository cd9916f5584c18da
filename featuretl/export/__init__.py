"""A fitted model as one ONNX file, for servers that have neither featuretl nor PyTorch."""
