"""The frozen global model: load, check and score; fit it on a log; judge it on the newest part."""
