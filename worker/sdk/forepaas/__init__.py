"""The names that handlers import; what stands behind them is `worker.lakehouse`."""
