"""RefCOCO-M's scores inside training loops: a torchmetrics `Metric`, its data, adapters to trainers."""
