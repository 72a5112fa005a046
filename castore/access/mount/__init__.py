"""Trees of a composition as folders of this machine, through FUSE; the command is `castore mount`."""
