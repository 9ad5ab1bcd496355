"""Models and processors of Defect Hub; a flat folder, because a Hub model repository carries these very files."""
