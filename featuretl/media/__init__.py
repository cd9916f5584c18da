"""Other media than images, through the same engine and store: sound, video, text, and your own."""
