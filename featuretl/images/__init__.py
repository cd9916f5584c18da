"""What an image is: where it comes from, how it is read and decoded."""
