"""The command line of featuretl: a command per file, each calling one public function."""
