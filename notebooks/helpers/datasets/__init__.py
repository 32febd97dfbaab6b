"""Where images and weights come from: sources, downloads, folders, samples."""
