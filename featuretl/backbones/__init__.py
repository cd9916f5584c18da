"""What a backbone is: frozen timm networks, their weights, preprocessing and pooling."""
