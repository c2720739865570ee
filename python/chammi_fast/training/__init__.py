"""Networks in PyTorch: build, train, export. Nothing outside the command line imports this package."""
