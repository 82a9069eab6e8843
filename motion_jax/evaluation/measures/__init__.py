"""Pure functions of features, scores, boxes and maps, which evaluators measure by."""
