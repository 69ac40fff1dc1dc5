"""The sandbox's REST API and pages."""
