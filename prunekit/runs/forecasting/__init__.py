"""What a run would take, before anything is spent: from the shapes of its model, and operators that are timed once."""

from prunekit.runs.forecasting.foreseen import Forecast, StageForecast, forecast, weighed

__all__ = ["Forecast", "StageForecast", "forecast", "weighed"]
