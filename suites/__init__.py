"""Suites of tasks: static vision, events, detection, sequences. ``suites.regression`` measures the project itself."""
