"""Why a file is bad: stages, layers, features, calibration."""
