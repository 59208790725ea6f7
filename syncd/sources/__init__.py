"""Sources: where tasks are read. One file each; they never import each other."""
