"""Training and prediction: the only place that knows Fabric, devices and run folders."""
