"""The pipeline: parameters, notebooks as stages, parallel runs, profiles."""
