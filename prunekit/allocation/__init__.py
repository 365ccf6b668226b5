"""Attainable shared out by measurement: what every width costs and what it damages, and the best set within limits."""
